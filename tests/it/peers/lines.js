// Answers each line that it reads with its number and its bytes, as programs with Node's readline do.
const readline = require("readline");
let count = 0;
readline.createInterface({ input: process.stdin, terminal: false }).on("line", (line) => {
  count += 1;
  process.stdout.write(`${count}:${Buffer.from(line, "utf8").toString("hex")}\n`);
});
