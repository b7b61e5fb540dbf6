// Reads messages as vscode-jsonrpc does: a head ends at CR LF CR LF and nowhere else, its lines at CR LF. Answers with what was said.
let held = Buffer.alloc(0);
process.stdin.on("data", (chunk) => {
  held = Buffer.concat([held, chunk]);
  for (;;) {
    const end = held.indexOf("\r\n\r\n");
    if (end < 0) return;
    const headers = held.toString("ascii", 0, end).split("\r\n");
    const header = headers.find((line) => line.toLowerCase().startsWith("content-length:"));
    if (header === undefined) throw new Error(`no length in ${headers}`);
    const length = parseInt(header.substring(header.indexOf(":") + 1), 10);
    const begin = end + 4;
    if (held.length < begin + length) return;
    const said = held.subarray(begin, begin + length);
    held = held.subarray(begin + length);
    process.stdout.write(Buffer.concat([Buffer.from(`Content-Length: ${said.length}\r\n\r\n`), said]));
  }
});
