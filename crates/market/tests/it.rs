//! The market over a real chain, a real indexer and a real Postgres, asked through its socket.

#![expect(clippy::unwrap_used, reason = "all of this is a test, also what its stories share")]

mod it {
    #[path = "../../../indexer/tests/it/anvil.rs"]
    #[allow(dead_code, reason = "the indexer's tests need more of it")]
    mod anvil;
    #[path = "../../../indexer/tests/it/history.rs"]
    #[allow(dead_code, reason = "the indexer's tests need more of it")]
    mod history;
    #[path = "../../../indexer/tests/it/mirrors.rs"]
    #[allow(dead_code, reason = "the indexer's tests need more of it")]
    mod mirrors;
    #[path = "../../../indexer/tests/it/postgres.rs"]
    #[allow(dead_code, reason = "the indexer's tests need more of it")]
    mod postgres;

    mod answers;
    mod bad;
    mod changes;
    mod limits;
    mod ready;
    mod search;
    mod served;
    mod truth;
}
