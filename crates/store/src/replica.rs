//! Replicas of apps.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::{codec, row::row};

/// The last lease of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The app.
    pub app: u64,
    /// Which replica.
    pub replica: u32,
    /// Its last lease.
    pub lease: u64,
    /// Who deployed it.
    #[serde(with = "codec::bytes")]
    pub deployer: Address,
    /// When.
    pub time: u64,
}

/// Its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The app.
    pub app: u64,
    /// Which replica.
    pub replica: u32,
}

row!(
    Replica,
    Key { app, replica },
    "replica",
    load "select to_jsonb(t) as \"row!: Json<Replica>\"
         from replica t join jsonb_populate_recordset(null::replica, $1) k using (app, replica)",
    save "insert into replica (app, replica, lease, deployer, time)
         select app, replica, lease, deployer, time
         from jsonb_populate_recordset(null::replica, $1)
         on conflict (app, replica) do update
         set (lease, deployer, time)
         = (excluded.lease, excluded.deployer, excluded.time)",
    remove "delete from replica t using jsonb_populate_recordset(null::replica, $1) k
         where t.app = k.app and t.replica = k.replica",
);
