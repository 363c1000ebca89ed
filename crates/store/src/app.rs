//! Apps that keepers keep deployed.

use alloy_primitives::{Address, B256};
use protocol::amount::Rate;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its number.
    pub id: u64,
    /// Who owns it.
    #[serde(with = "codec::bytes")]
    pub owner: Address,
    /// Who keeps it.
    #[serde(with = "codec::bytes")]
    pub keeper: Address,
    /// Who pays.
    #[serde(with = "codec::bytes")]
    pub account: B256,
    /// The account's first slot that is the app's.
    pub slot: u32,
    /// Its name.
    pub name: String,
    /// Whether it still has that name.
    pub named: bool,
    /// The hash of what its keeper goes by.
    #[serde(with = "codec::bytes")]
    pub spec: B256,
    /// Where that can be had.
    pub uri: String,
    /// What its keeper is paid.
    #[serde(with = "codec::number")]
    pub fee: Rate,
    /// How many leases it may have.
    pub replicas: u32,
    /// The longest lock of one.
    pub max_lock: u32,
    /// The most that one may cost.
    #[serde(with = "codec::number")]
    pub max_rate: Rate,
    /// Which pods may run.
    #[serde(with = "codec::bytes")]
    pub pods: B256,
    /// When it was registered.
    pub registered_at: u64,
    /// When it was given up.
    pub retired_at: Option<u64>,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its number.
    pub id: u64,
}

row!(
    App,
    Key { id },
    "app",
    load "select to_jsonb(t) as \"row!: Json<App>\"
         from app t join jsonb_populate_recordset(null::app, $1) k using (id)",
    save "insert into app (id, owner, keeper, account, slot, name, named, spec, uri, fee, replicas, max_lock,
             max_rate, pods, registered_at, retired_at)
         select id, owner, keeper, account, slot, name, named, spec, uri, fee, replicas, max_lock,
             max_rate, pods, registered_at, retired_at
         from jsonb_populate_recordset(null::app, $1)
         order by named
         on conflict (id) do update
         set (owner, keeper, account, slot, name, named, spec, uri, fee, replicas, max_lock,
             max_rate, pods, registered_at, retired_at)
         = (excluded.owner, excluded.keeper, excluded.account, excluded.slot, excluded.name,
             excluded.named, excluded.spec, excluded.uri, excluded.fee, excluded.replicas,
             excluded.max_lock, excluded.max_rate, excluded.pods, excluded.registered_at,
             excluded.retired_at)",
    remove "delete from app t using jsonb_populate_recordset(null::app, $1) k
         where t.id = k.id",
);
