"""The official SDK as a client of the tools: over HTTP and on stdin and stdout, in the protocol with sessions and in the one
without. Takes the address of a running service and the greenroom to speak MCP with; prints what it saw."""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters

TOOLS = ["background_task", "background_output", "background_cancel", "background_send", "background_list"]


def text(result):
    return result.content[0].text


async def talk(server, mode):
    async with Client(server, mode=mode, read_timeout_seconds=60) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == TOOLS, listed
        hints = {tool.name: tool.annotations.read_only_hint for tool in listed.tools}
        assert hints["background_list"] and not hints["background_cancel"], hints
        for tool in listed.tools:
            assert tool.input_schema["type"] == "object" and tool.description, tool

        parent = f"ses_{os.urandom(8).hex()}"
        launch = {"description": "by the SDK", "prompt": "Wait.", "agent": "sdk", "parent_session_id": parent}
        launched = await client.call_tool("background_task", launch)
        assert not launched.is_error, launched
        task = (launched.meta or {})["greenroom"]["taskId"]
        assert task in text(launched) and "You will be notified" in text(launched), launched

        told = []

        async def progress(done, _total, message):
            told.append((done, message))

        wait = {"task_id": task, "block": True, "timeout": 1500, "parent_session_id": parent}
        open_yet = await client.call_tool("background_output", wait, progress_callback=progress)
        assert "did not end within the time" in text(open_yet), open_yet
        assert told and told[0][0] == 1 and ("running" in told[0][1] or "pending" in told[0][1]), told

        mine = await client.call_tool("background_list", {"parent_session_id": parent})
        assert text(mine).startswith("1 background task:") and task in text(mine), mine
        foreign = await client.call_tool("background_output", {"task_id": task, "parent_session_id": "ses_other"})
        assert foreign.is_error and "of yours" in text(foreign), foreign
        wrong = await client.call_tool("background_task", {"promt": "?"})
        assert wrong.is_error and "did you mean prompt?" in text(wrong), wrong

        ended = await client.call_tool("background_cancel", {"all": True, "parent_session_id": parent})
        assert task in text(ended), ended
        read = await client.call_tool("background_output", {"task_id": task, "parent_session_id": parent})
        assert "status: cancelled" in text(read), read
        return client.session.protocol_version


async def main(service, greenroom):
    for mode in ["legacy", "auto"]:
        spoken = await talk(f"{service}/mcp", mode)
        print(json.dumps({"transport": "http", "mode": mode, "protocol": spoken}))
        process = StdioServerParameters(command=greenroom, args=["mcp", "--url", service])
        spoken = await talk(process, mode)
        print(json.dumps({"transport": "stdio", "mode": mode, "protocol": spoken}))


asyncio.run(main(*sys.argv[1:]))
