//! What the market asks costs no more when there is more history: Postgres says how it would go about each query, on a
//! market of 100,000 providers and 1,000,000 leases.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::postgres::{Postgres, project};

const MARKET: &str = include_str!("plans.sql");

/// The market's queries among those that the programs were compiled with, with the types of their parameters.
fn queries() -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut queries = Vec::new();
    for file in std::fs::read_dir(project().join(".sqlx"))? {
        let stored: Value = serde_json::from_slice(&std::fs::read(file?.path())?)?;
        let text = stored["query"].as_str().context("a query without its text")?;
        let is_page = text.contains("limit $");
        let is_one = text.contains(" t where t.") && !text.starts_with("delete");
        if !(is_page || is_one) || text.contains("jsonb_populate_recordset") {
            continue;
        }
        let types = stored.pointer("/describe/parameters/Left").and_then(Value::as_array);
        let types = types.context("a query without its parameters")?.iter().map(|kind| {
            let kind = kind.as_str().context("a parameter without its type")?;
            Ok(match kind.strip_suffix("Array") {
                Some(kind) => format!("{kind}[]"),
                None => kind.to_owned(),
            })
        });
        queries.push((text.to_owned(), types.collect::<anyhow::Result<_>>()?));
    }
    Ok(queries)
}

/// All nodes of a plan.
fn nodes<'a>(plan: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(plan);
    for part in plan["Plans"].as_array().into_iter().flatten() {
        nodes(part, all);
    }
}

#[test]
fn the_market_reads_by_indexes() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let url = postgres.database()?;
    for migration in {
        let files = std::fs::read_dir(project().join("migrations"))?;
        let files = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<BTreeSet<_>>>();
        files?
    } {
        Postgres::ask(&url, &std::fs::read_to_string(migration)?)?;
    }
    Postgres::ask(&url, MARKET)?;
    Postgres::ask(&url, "vacuum analyze")?;

    let (mut asked, mut reads) = (0, BTreeSet::new());
    for (text, types) in queries()? {
        let nulls = vec!["null"; types.len()].join(", ");
        let plan = Postgres::ask(
            &url,
            &format!(
                "set plan_cache_mode = force_generic_plan; prepare q ({}) as {text}; \
                 explain (format json) execute q ({nulls})",
                types.join(", ")
            ),
        )?;
        let plan: Value = serde_json::from_str(&plan).context(plan)?;
        let mut all = Vec::new();
        nodes(&plan[0]["Plan"], &mut all);
        for node in all {
            let kind = node["Node Type"].as_str().context("a node without its type")?;
            ensure!(!kind.contains("Seq Scan"), "{text}\nreads a whole table: {plan:#}");
            // What is asked for by many keys at once is as much as the keys are; and one provider's vouches are sorted
            // alone.
            let of_one = node.pointer("/Plans/0/Relation Name") == Some(&Value::from("vouch"));
            let sorts = kind.contains("Sort") && !of_one && !text.contains("= any(");
            ensure!(!sorts, "{text}\nsorts what an index could have in order: {plan:#}");
            reads.extend(node["Relation Name"].as_str().map(str::to_owned));
        }
        asked += 1;
    }
    // No query of another name or form went by unseen.
    ensure!(asked == 45, "{asked} queries were asked about");
    for relation in reads {
        let rows = Postgres::ask(&url, &format!("select count(*) from {relation}"))?;
        ensure!(rows.trim().parse::<u64>()? >= 40_000, "{relation} has {rows} rows");
    }
    Ok(())
}
