# SPDX-License-Identifier: Apache-2.0
"""A network that can be cut: connections to a port are passed on to another one, until they are all cut."""

import asyncio
import contextlib
import threading


class Proxy:
    """Thread safety: thread-safe."""

    def __init__(self, target_port):
        self._target, self._writers, self.cuts = target_port, set(), 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader, writer):
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        both = {writer, target_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pass(reader, target_writer), self._pass(target_reader, writer))
        finally:
            self._writers -= both

    @staticmethod
    async def _pass(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self):
        """Ends all connections at once, in the middle of what they say."""
        def abort():
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)
        self.cuts += 1

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
