"""asyncssh with 128 requests in flight, of 16 KiB and of its own choice."""
import asyncio
import sys
import asyncssh

port, key_file, known_hosts, user, remote, folder, size = sys.argv[1:]


async def main():
    async with asyncssh.connect("127.0.0.1", int(port), username=user, client_keys=[key_file], agent_path=None,
                                known_hosts=known_hosts, config=None) as connection:
        async with connection.start_sftp_client() as sftp:
            assert await sftp.realpath(".") == "/"
            attributes = await sftp.stat(remote)
            assert attributes.size == int(size) and attributes.mtime == 1774448940, attributes
            await sftp.get(remote, folder + "/many", max_requests=128, block_size=16384)
            await asyncio.gather(*(sftp.get(remote, f"{folder}/beside-{n}", max_requests=128) for n in range(3)))
            space = await sftp.statvfs("/")
            assert space.flags & 1 and space.bfree == 0, space
            names = [entry.filename async for entry in sftp.scandir("/")]
            assert len(names) == len(set(names)), names


asyncio.run(asyncio.wait_for(main(), 100))
