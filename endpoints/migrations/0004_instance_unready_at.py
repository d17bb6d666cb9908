from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("endpoints", "0003_reserved_names"),
    ]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="unready_at",
            field=models.DateTimeField(null=True),
        ),
    ]
