// Writes the tables of docs/gas.md out of the figures beside this file; `make gas` calls it.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const AIMS = [
  ["collect one stream", 63_000, "Payments", "collect, one stream"],
  ["close a stream, by the account's owner", 60_000, "Payments", "closeStream, by the owner"],
  ["top up an account while its streams run", 54_000, "Payments", "deposit, a top-up while streams run"],
  ["open a lease (quote, slot, stream), without coverage", 200_000, "Leases", "open, without coverage"],
  ["the same with coverage", 200_000, "Leases", "open"],
  ["activate a lease", 75_000, "Leases", "activate"],
  ["bid, the first", 80_000, "Auction", "bid, the first"],
  ["outbid another", 60_000, "Auction", "bid, outbidding another"],
  ["award (which opens the lease)", 150_000, "Auction", "award"],
  ["report of a committee, seven signatures", 150_000, "Sla", "report, a longer outage, seven signatures"],
];

const here = (name) => new URL(name, import.meta.url);
const page = here("../docs/gas.md");
const names = readdirSync(here(".")).filter((name) => name.endsWith(".json")).sort();
const groups = Object.fromEntries(
  names.map((name) => [name.replace(".json", ""), JSON.parse(readFileSync(here(name), "utf8"))]),
);
const shown = (gas) => Number(gas).toLocaleString("en");
const table = (head, rows) => [head, ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

const aims = table(
  ["what", "aim", "is"],
  [["---", "---:", "---:"], ...AIMS.map(([what, aim, group, operation]) => {
    const gas = Number(groups[group][operation]);
    return [what, shown(aim), gas <= aim ? shown(gas) : `**${shown(gas)}**`];
  })],
);
const figures = Object.entries(groups)
  .map(([group, operations]) => {
    const rows = Object.entries(operations).map(([operation, gas]) => [operation, shown(gas)]);
    return `### ${group}\n\n${table(["operation", "gas"], [["---", "---:"], ...rows])}`;
  })
  .join("\n\n");

let text = readFileSync(page, "utf8");
for (const [mark, content] of Object.entries({ aims, figures })) {
  const pattern = new RegExp(`<!-- ${mark} -->[^]*<!-- /${mark} -->`);
  if (!pattern.test(text)) throw new Error(`docs/gas.md lacks <!-- ${mark} --> and <!-- /${mark} -->`);
  text = text.replace(pattern, `<!-- ${mark} -->\n\n${content}\n\n<!-- /${mark} -->`);
}
writeFileSync(page, text);
