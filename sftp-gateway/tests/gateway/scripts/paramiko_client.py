"""paramiko as people use it: get() asks for the whole file at once, which hangs servers that stop reading meanwhile."""
import sys
import paramiko

port, key_file, known_hosts, user, remote, folder, size = sys.argv[1:]
key = paramiko.RSAKey.from_private_key_file(key_file)
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.set_missing_host_key_policy(paramiko.RejectPolicy())
client.connect("127.0.0.1", int(port), user, pkey=key, allow_agent=False, look_for_keys=False)
sftp = client.open_sftp()
attributes = sftp.stat(remote)
assert attributes.st_size == int(size) and attributes.st_mtime == 1774448940, attributes
assert str(attributes).startswith("-r--r--r--"), attributes
sftp.get(remote, folder + "/prefetch")
sftp.get(remote, folder + "/sequential", prefetch=False)
with sftp.open(remote) as file:
    assert file.stat().st_size == int(size)
    file.seek(int(size) - 10)
    assert len(file.read(100)) == 10
    for piece in file.readv([(0, 100000), (5, 7), (int(size) - 5, 5)]):
        assert piece
    # A second transfer on the same connection while the first is not read from.
    file.prefetch(int(size))
    sftp.get(remote, folder + "/beside")
names = sftp.listdir(".")
assert sorted(names) == names and "." not in names, names
assert sftp.normalize(".") == "/" and sftp.normalize("/a/../b/./c") == "/b/c"
try:
    sftp.stat("/absent")
    raise SystemExit("absent file found")
except FileNotFoundError:
    pass
for change in (lambda: sftp.remove(remote), lambda: sftp.mkdir("/new"), lambda: sftp.open("/new", "w"),
               lambda: sftp.rename(remote, "/other"), lambda: sftp.chmod(remote, 0o777), lambda: sftp.symlink("a", "b")):
    try:
        change()
        raise SystemExit("a change was let through")
    except PermissionError:
        pass
# Windows file managers and shells ask for these, and must hear no at once.
channel = client.get_transport().open_session()
channel.settimeout(60)
for refused in (channel.get_pty, channel.invoke_shell, lambda: channel.exec_command("id")):
    try:
        refused()
        raise SystemExit("a shell was given")
    except paramiko.SSHException:
        pass
    channel = client.get_transport().open_session()
stdin, stdout, stderr = client.exec_command("sha256sum " + remote)
print(stdout.read().decode().split()[0])
assert stdout.channel.recv_exit_status() == 0
client.close()
