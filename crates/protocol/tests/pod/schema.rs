//! The published schema of `x-roadstead` says what the reader says.

use boon::{Compiler, Schemas};
use protocol::pod::SCHEMA;
use serde_json::Value;

/// Blocks that only the reader can refuse, since they contradict the rest of the file or themselves.
const BEYOND_A_SCHEMA: &[&str] = &[
    "service web does not list port",
    "there is no service",
    "there is no secret",
    "there is no host",
    "fails its checksum",
    "write more than grace",
    "longer than 194 days",
];

fn is_valid(block: &Value) -> bool {
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    compiler.add_resource("x-roadstead.json", schema).expect("a resource");
    let index = compiler.compile("x-roadstead.json", &mut schemas).expect("a schema");
    schemas.validate(block, index).is_ok()
}

#[test]
fn what_the_reader_takes_the_schema_takes() {
    let files = [
        crate::GUESTBOOK,
        crate::EVERYTHING,
        crate::MORE,
        include_str!("../../../../examples/guestbook/compose.yaml"),
        &crate::block("{}"),
        &crate::block("{ ingress: , price: { max: }, providers: { region: [], address: }, sla: }"),
        &crate::block("{ encrypt: true }"),
        &crate::block("{ encrypt: { key: , services: } }"),
        &crate::block("{ encrypt: { key: ./app.key, services: [web] } }"),
        &crate::block(&format!("{{ attested: {{ measurements: '0x{}' }} }}", "aB".repeat(32))),
        &crate::block(&format!(
            "{{ attested: {{ kind: sev-snp, measurements: ['0x{}'], oldest: ./amd.toml, collateral: }} }}",
            "07".repeat(32)
        )),
        &crate::block(
            "{ price: { max: \"1 / mo\" }, sla: { coverage: \"7\", grace: 0, full: 1h30m } }",
        ),
        &crate::block(
            "{ providers: { region: eu, address: [\"0x00000000000000000000000000000000000000aa\"] } }",
        ),
        &crate::block(
            "{ providers: { where: 'region.startsWith(\"eu\") && attested()', region: eu } }",
        ),
        &crate::block(
            "{ egress: { rate: \"1.5 gbit\", total: 2147483648 }, price: { max: \"${PRICE:-1/h}\" }, ingress: { a.example.org: \"${TO:-web:8080}\" } }",
        ),
    ];
    for file in files {
        crate::parse(file);
        let tree: Value = serde_saphyr::from_str(file).unwrap();
        if let Some(block) = tree.get("x-roadstead") {
            assert!(is_valid(block), "{block}");
        }
    }
}

#[test]
fn what_the_reader_refuses_the_schema_refuses() {
    for block in crate::REFUSED_BLOCKS {
        let said = crate::refusal(&crate::block(block));
        let value: Value = serde_saphyr::from_str(block).unwrap();
        let mut faults = said.lines();
        let beyond = faults.all(|fault| BEYOND_A_SCHEMA.iter().any(|why| fault.contains(why)));
        assert_eq!(is_valid(&value), beyond, "{block}\n{said}");
    }
}
