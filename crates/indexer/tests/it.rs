//! The indexer on a real chain and a real Postgres. Whatever happens on the way, in the end the database is equal, row by
//! row, to one that is built from scratch, and what it says is what the contracts say.

#![expect(clippy::unwrap_used, reason = "all of this is a test, also what its stories share")]

mod it {
    mod anvil;
    mod child;
    mod compare;
    mod history;
    mod mirrors;
    mod plans;
    mod postgres;
    mod proxy;
    mod reads;
    mod stories;
    mod wallet;
}
