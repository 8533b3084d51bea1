// ssh2-sftp-client, as Node programs use it: fastGet asks for 64 pieces at once.
const fs = require("fs");
const Client = require("ssh2-sftp-client");
const [port, key, , username, remote, folder, size] = process.argv.slice(2);
(async () => {
  const sftp = new Client();
  await sftp.connect({ host: "127.0.0.1", port: Number(port), username, privateKey: fs.readFileSync(key) });
  const stat = await sftp.stat(remote);
  if (stat.size !== Number(size) || !stat.isFile || stat.modifyTime !== 1774448940000) throw new Error(JSON.stringify(stat));
  if ((await sftp.realPath(".")) !== "/") throw new Error("realPath");
  if ((await sftp.exists("/absent")) !== false) throw new Error("absent");
  const list = await sftp.list("/");
  if (!list.some((entry) => entry.type === "d" && entry.name === "2026")) throw new Error(JSON.stringify(list));
  await sftp.fastGet(remote, folder + "/fast");
  await sftp.get(remote, folder + "/stream");
  await sftp.get(remote, folder + "/tail", { readStreamOptions: { start: Number(size) - 1000 } });
  // Whether all of it is there is looked at when this program has ended: get() comes back before it has written.
  await sftp.end();
})().catch((error) => { console.error(error); process.exit(1); });
