"""The least that can stand before a student's endpoint: an aiohttp server that passes requests on, and answers as they come.

    python tests/benchmarks/relay.py PORT BASE_URL

It decides, checks and records nothing. What `seqdistill serve` costs more than this is what its work costs.
"""

import asyncio
import sys

import aiohttp
from aiohttp import web


async def serve(port: int, base_url: str) -> None:
    """Serves until it is killed; prints a line once it listens."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def chat(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            body |= {"logprobs": True, "top_logprobs": 0}  # what `seqdistill serve` requests of the student
            if body.get("stream"):
                body["stream_options"] = {"include_usage": True}
            async with session.post(f"{base_url}/chat/completions", json=body) as reply:
                if not body.get("stream"):
                    return web.Response(body=await reply.read(), content_type="application/json")
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                async for data in reply.content.iter_any():
                    await response.write(data)
                await response.write_eof()
                return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print("listening", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
