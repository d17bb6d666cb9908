"""The commands that put a model into the registry, as they work when they are copied into a shell."""

from __future__ import annotations

from string import Template

from django.conf import settings

from endpoints.models import RegisteredModel

SETTING = Template("""\
TIR=$console MODEL=$model FILE=model.gguf  # TIR_API_KEY: a key with the scope “manage”
tir() { curl -sSf -H "Authorization: Bearer $$TIR_API_KEY" -H "Tus-Resumable: 1.0.0" "$$@"; }
""")
MODEL = """\
tir "$TIR/api/v1/models" --json "{\\"name\\": \\"$MODEL\\"}"
"""
VERSION = """\
DRAFT=$TIR/api/v1/models/$MODEL/drafts/$(tir "$TIR/api/v1/models/$MODEL/drafts" --json '{}' |
  sed 's/.*"id": *"\\([^"]*\\)".*/\\1/')
upload() {  # upload FILE PATH: called again, it goes on where it was cut off
  local offset size=$(stat -c %s "$1") kept=".upload.$(basename "$1")"
  [ -s "$kept" ] || tir -X POST "$DRAFT/uploads" -H "Upload-Length: $size" -o /dev/null -w '%header{location}' \\
    -H "Upload-Metadata: path $(printf %s "$2" | base64 -w0)" > "$kept"
  until offset=$(tir -I "$TIR$(cat "$kept")" -o /dev/null -w '%header{upload-offset}') || return 1
    [ "$offset" = "$size" ]; do
    tail -c +$((offset + 1)) "$1" | head -c 16M | tir -X PATCH "$TIR$(cat "$kept")" --data-binary @- \\
      -H "Upload-Offset: $offset" -H "Content-Type: application/offset+octet-stream" || return 1
  done
  rm "$kept"
}
upload "$FILE" "$(basename "$FILE")" && tir -X POST "$DRAFT/publish"
"""


def commands(model: RegisteredModel | None) -> str:
    """From a file to a published version of this model, or of a new one."""
    values = {"console": settings.CONSOLE_URL, "model": model.name if model else "my-model"}
    return SETTING.substitute(values) + ("" if model else MODEL) + VERSION.rstrip()
