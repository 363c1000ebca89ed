// The same events of the same contracts into the same database as ours, as they were emitted.
import { readFileSync } from "node:fs";
import { createConfig } from "ponder";

const deployment = JSON.parse(readFileSync(process.env.DEPLOYMENT!, "utf8"));
const abi = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../crates/chain/abi/${name}.json`, import.meta.url), "utf8"))
    .filter((item: { type: string }) => item.type === "event");
const contract = (name: string, address: `0x${string}`) => ({
  chain: "bench",
  abi: abi(name),
  address,
  startBlock: 1,
  ...(process.env.END ? { endBlock: Number(process.env.END) } : {}),
});

export default createConfig({
  database: { kind: "postgres", connectionString: process.env.DATABASE_URL },
  chains: { bench: { id: 31337, rpc: process.env.RPC!, ethGetLogsBlockRange: 1000 } },
  contracts: {
    Payments: contract("Payments", deployment.payments),
    Staking: contract("Staking", deployment.staking),
    Registry: contract("Registry", deployment.registry),
  },
});
