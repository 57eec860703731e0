import asyncio


async def init():
    pass


async def run(data):
    await asyncio.sleep(0)
    if data == "!raise":
        raise ValueError("x")
    return {"awaited": data}
