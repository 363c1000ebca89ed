//! The market, end to end: each test is a story on a chain, a provider and a Docker engine that are real.

#[path = "e2e/addons.rs"]
mod addons;
#[path = "e2e/admin.rs"]
mod admin;
#[path = "e2e/attest.rs"]
mod attest;
#[path = "e2e/chain.rs"]
mod chain;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/dark.rs"]
mod dark;
#[path = "e2e/deploy.rs"]
mod deploy;
#[path = "e2e/encrypted.rs"]
mod encrypted;
#[path = "e2e/escape.rs"]
mod escape;
#[path = "e2e/fence.rs"]
mod fence;
#[path = "e2e/https.rs"]
mod https;
#[path = "e2e/images.rs"]
mod images;
#[path = "e2e/layers.rs"]
mod layers;
#[path = "e2e/market.rs"]
mod market;
#[path = "e2e/money.rs"]
mod money;
#[path = "e2e/operate.rs"]
mod operate;
#[path = "e2e/page.rs"]
mod page;
#[path = "e2e/ports.rs"]
mod ports;
#[path = "e2e/prices.rs"]
mod prices;
#[path = "e2e/providers.rs"]
mod providers;
#[path = "e2e/quotes.rs"]
mod quotes;
#[path = "e2e/restarts.rs"]
mod restarts;
#[path = "e2e/verify.rs"]
mod verify;
