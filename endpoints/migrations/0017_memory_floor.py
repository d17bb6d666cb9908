from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('endpoints', '0016_measured_correction'),
    ]

    operations = [
        migrations.CreateModel(
            name='MemoryFloor',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('model', models.CharField(max_length=64)),
                ('engine', models.CharField(max_length=20)),
                ('data_type', models.CharField(max_length=12)),
                ('device', models.CharField(max_length=40)),
                ('limit_bytes', models.BigIntegerField()),
                ('length', models.PositiveIntegerField()),
                ('concurrency', models.PositiveIntegerField()),
                ('above_bytes', models.BigIntegerField(null=True)),
                ('lived', models.DurationField()),
                ('ended_at', models.DateTimeField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('model', 'engine', 'data_type', 'device'), name='memory_floor_once')],
            },
        ),
    ]
