import { onchainTable } from "ponder";

export const event = onchainTable("event", (t) => ({
  id: t.text().primaryKey(),
  blockNumber: t.bigint().notNull(),
  logIndex: t.integer().notNull(),
  tx: t.hex().notNull(),
  name: t.text().notNull(),
  args: t.jsonb().notNull(),
}));
