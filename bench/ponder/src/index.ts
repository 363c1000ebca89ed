import { ponder } from "ponder:registry";
import schema from "ponder:schema";

const names = [
  "Payments:Deposited",
  "Registry:Heartbeat",
  "Registry:Listed",
] as const;

for (const name of names) {
  ponder.on(name as never, async ({ event, context }: never) => {
    const e = event as any;
    await (context as any).db.insert(schema.event).values({
      id: e.id,
      blockNumber: e.block.number,
      logIndex: e.log.logIndex,
      tx: e.transaction.hash,
      name,
      args: JSON.parse(JSON.stringify(e.args, (_, v) => (typeof v === "bigint" ? v.toString() : v))),
    });
  });
}
