"""Live pages: one socket a page, for what changes, what is measured, what is logged, and what a person asks.

    from the server  {"type": "doorbell", "what": [fragment, …] | null}  fetch these anew, or all
                     {"type": "tick", "at", "data"}                   see monitoring.tick
                     {"type": "log", "instance", "lines": [{"seq", "at", "stream", "text"} | {"gap": true}]}
                     {"type": "result", "ok", "message", "id", …}     the answer to whatever was asked
                     {"type": "beat"}                                 the line is alive; there was no tick
    from the page    {"type": "action", "verb", "args", "id"}         see endpoints.acts
                     {"type": "follow", "instance", "after": seq}     lines after it, then new ones as they come
                     {"type": "unfollow"}    {"type": "ping", "id"}

Closed with 4401 when nobody is logged in (any more), with 4404 for what is not there or not theirs to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

import redis
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError
from django.urls import path

from accounts.models import User
from endpoints import acts, bell
from endpoints.acts import Result
from monitoring import access, presence
from monitoring.access import Closed, Door
from monitoring.follow import Follower
from monitoring.outbox import Outbox, Overrun

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 16_384
LARGEST_SEQUENCE = 2**53  # what JavaScript counts exactly
BEAT_SECONDS = 1.5
RECHECK_SECONDS = 5.0
TRY_LATER, TOO_MUCH = 1013, 1008
Json = dict[str, Any]


class LiveConsumer(AsyncWebsocketConsumer):
    user: User
    door: Door | None = None
    recheck_seconds = RECHECK_SECONDS

    async def connect(self) -> None:
        await self.accept()  # first, because only an accepted socket can say why it closes
        self.outbox = Outbox()
        self.follower = Follower(self.outbox)
        self.tasks: list[asyncio.Task[None]] = []
        self.last_tick = time.monotonic()
        names = self.scope["url_route"]["kwargs"]
        try:
            self.user = await access.person(self.scope)
            self.door = await access.door(self.user, names["project"], names.get("endpoint"))
            await self.channel_layer.group_add(self.door.group, self.channel_name)
            await self._mark()
            if await sync_to_async(bell.rung, thread_sensitive=False)(self.door.group):
                self._answer({"type": "doorbell", "what": None})
        except Closed as closed:
            await self.close(code=closed.code)
            return
        except (redis.RedisError, OSError, DatabaseError) as problem:
            log.warning("A page could not go live: %s", problem)
            await self.close(code=TRY_LATER)
            return
        self.tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._keep(self.door))]

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.door is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                await self.channel_layer.group_discard(self.door.group, self.channel_name)

    # ── from the server to the page ──────────────────────────────────────────────────────────────
    async def live_message(self, event: Json) -> None:
        """A message to this socket's group."""
        message = event["message"]
        if message["type"] == "doorbell":
            self.outbox.ring(message["what"])
        elif message["type"] == "log":
            await self.follower.came(message)

    async def live_tick(self, event: Json) -> None:
        """Numbers for this socket's group; see monitoring.tick."""
        self.last_tick = time.monotonic()
        self.outbox.tick(event["text"], charts=event["charts"])

    async def _send(self) -> None:
        while True:
            message = await self.outbox.next()
            text = (
                message
                if isinstance(message, str)
                else json.dumps(message, separators=(",", ":"), allow_nan=False)
            )
            await self.send(text_data=text)

    async def _keep(self, door: Door) -> None:
        """Beats, the mark that somebody looks, and the question whether they still may."""
        marked = checked = beaten = time.monotonic()
        while True:
            await asyncio.sleep(min(0.5, self.recheck_seconds))
            now = time.monotonic()
            if now - max(self.last_tick, beaten) >= BEAT_SECONDS:
                beaten = now
                self._answer({"type": "beat"})
            try:
                if now - marked >= presence.RENEW_SECONDS:
                    marked = now
                    await self._mark()
                if now - checked >= self.recheck_seconds:
                    checked = now
                    await access.still(await access.person(self.scope), door)
            except Closed as closed:
                await self.close(code=closed.code)
                return
            except (redis.RedisError, OSError, DatabaseError) as problem:
                log.warning("A live page was not looked after: %s", problem)

    async def _mark(self) -> None:
        if self.door is not None:
            await sync_to_async(presence.mark, thread_sensitive=False)(
                bell.valkey(), self.door.group, at=time.time()
            )

    def _answer(self, message: Json) -> None:
        try:
            self.outbox.answer(message)
        except Overrun:
            self.tasks.append(asyncio.create_task(self.close(code=TOO_MUCH)))

    # ── from the page to the server ──────────────────────────────────────────────────────────────
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.door is None:
            return
        message = parsed(text_data)
        if isinstance(message, Result):
            self._answer(message.as_json())
            return
        try:
            self.user = await access.person(self.scope)
            await access.still(self.user, self.door)
            await self._do(message, self.door)
        except Closed as closed:
            await self.close(code=closed.code)
        except DatabaseError as problem:
            log.warning("A page's wish failed: %s", problem)
            self._answer(Result(False, "The database does not answer. Try again.").as_json(message.get("id")))

    async def _do(self, message: Json, door: Door) -> None:
        kind = message["type"]
        if kind == "action":
            self._answer(await self._act(message, door))
        elif kind == "follow":
            await self._follow(message, door)
        elif kind == "unfollow":
            self.follower.leave()
        elif kind == "ping":
            self._answer({"type": "pong", "id": message.get("id")})
        else:
            said = f"There is no message “{str(kind)[:40]}”. Messages are action, follow, unfollow and ping."
            self._answer(Result(False, said).as_json(message.get("id")))

    async def _act(self, message: Json, door: Door) -> Json:
        args, id_ = message.get("args") or {}, message.get("id")
        if not isinstance(args, dict):
            return Result(False, "“args” must be an object.").as_json(id_)
        key = door.endpoint_id
        if key is None:
            key = await access.endpoint_named(self.user, door, str(args.get("endpoint", "")))
        if key is None:
            return Result(False, acts.NOT_THERE).as_json(id_)
        result = await database_sync_to_async(acts.act)(self.user, key, str(message.get("verb", "")), args)
        return result.as_json(id_)

    async def _follow(self, message: Json, door: Door) -> None:
        instance = await access.instance_named(self.user, door, str(message.get("instance", "")))
        if instance is None:
            said = "There is no such instance here, or your role reads no logs."
            self._answer(Result(False, said).as_json(message.get("id")))
            return
        after = message.get("after")
        await self.follower.follow(
            instance, after if isinstance(after, int) and 0 < after < LARGEST_SEQUENCE else 0
        )


def parsed(text: str | None) -> Json | Result:
    """The message, or what is wrong with it."""
    if text is None:
        return Result(False, "Messages are JSON text; this one was binary.")
    if len(text) > LARGEST_MESSAGE:
        return Result(False, f"The message has {len(text):,} characters; at most {LARGEST_MESSAGE:,} are read.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as problem:
        return Result(False, f"The message is not JSON: {problem}.")
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return Result(False, "A message is a JSON object with a “type”.")
    return message


_page: Any = LiveConsumer.as_asgi()
sockets = [
    path("ws/projects/<slug:project>/", _page),
    path("ws/projects/<slug:project>/endpoints/<slug:endpoint>/", _page),
]
