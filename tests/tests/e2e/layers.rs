//! The order of the crates: `protocol`, on it `chain`, `store`, `edge` and `seal`, blind to each other, on them the roles,
//! blind to each other, on them `roadstead`, on it these tests.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

/// From the bottom up. What stands in one layer is blind to what stands beside it.
const LAYERS: [&[&str]; 5] = [
    &["protocol"],
    &["chain", "store", "edge", "seal"],
    &["provider", "keeper", "watcher", "indexer", "market"],
    &["roadstead"],
    &["tests"],
];

/// What stands beside all this and is used by none of it.
const APART: &[&str] = &["guestbook"];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// The packages of the workspace, each with those of them that it depends on.
fn packages() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let root = tests::project();
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in ["crates", "examples", "."] {
        for entry in std::fs::read_dir(root.join(folder))? {
            let file = entry?.path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let manifest: toml::Table = toml::from_str(&text)?;
            let Some(name) = manifest.get("package").and_then(|package| package.get("name")) else {
                continue;
            };
            let name = name.as_str().context("a package's name is no text")?.to_owned();
            let mut tables: Vec<&toml::Value> = Vec::new();
            for key in ["dependencies", "build-dependencies"] {
                tables.extend(manifest.get(key));
                let targets = manifest.get("target").and_then(toml::Value::as_table);
                tables.extend(
                    targets.into_iter().flat_map(|t| t.values()).filter_map(|t| t.get(key)),
                );
            }
            let used = tables.into_iter().filter_map(toml::Value::as_table).flat_map(|t| t.iter());
            let used = used.map(|(key, value)| {
                let renamed = value.get("package").and_then(toml::Value::as_str);
                renamed.unwrap_or(key).to_owned()
            });
            packages.insert(name, used.collect());
        }
    }
    let known: Vec<String> = packages.keys().cloned().collect();
    for used in packages.values_mut() {
        used.retain(|name| known.contains(name));
    }
    Ok(packages)
}

#[test]
fn crates_use_only_what_stands_below_them() -> anyhow::Result<()> {
    let packages = packages()?;
    ensure!(packages.len() > 6, "there are only {packages:?}");
    ensure!(
        packages["roadstead"].contains(&"provider".to_owned()),
        "nothing was read: {packages:?}"
    );
    for (name, used) in &packages {
        if APART.contains(&name.as_str()) {
            ensure!(used.is_empty(), "{name} stands apart and uses {used:?}");
            continue;
        }
        let own =
            layer(name).with_context(|| format!("{name} stands in no layer; put it into one"))?;
        for other in used {
            let below = layer(other).is_some_and(|layer| layer < own);
            ensure!(below, "{name} uses {other}, which does not stand below it");
        }
    }
    Ok(())
}
