//! What a provider's machine proves of itself. There is no such hardware here, which every output has to say.

use alloy::primitives::Address;
use anyhow::ensure;
use tests::{Setup, story};

#[tokio::test]
async fn a_machine_without_the_hardware_is_unattested_and_unlocks_nothing() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let provider = stack.provider.address().to_string();
        let said = stack.publisher.run(&["attest", &provider]).await?;
        ensure!(said.code == 0 && said.out.contains("UNATTESTED"), "{}: {}", said.out, said.err);
        let value = stack.publisher.json(&["attest", &provider]).await?;
        ensure!(value["attested"].is_null() && value["verdict"] == "UNATTESTED", "{value}");
        // Asked anew, it is about another number.
        let again = stack.publisher.json(&["attest", &provider]).await?;
        ensure!(value["subject"]["nonce"] != again["subject"]["nonce"], "{value}");
        for required in ["any", "tdx", "sev-snp"] {
            let said = stack.publisher.run(&["attest", &provider, "--require", required]).await?;
            said.refused(1, &["UNATTESTED", "--require"])?;
        }
        let nobody = Address::repeat_byte(7).to_string();
        let said = stack.publisher.run(&["attest", &nobody]).await?;
        said.refused(1, &["does not know a provider", &nobody])?;
        let said = stack.publisher.run(&["attest", &provider, "--require", "sgx"]).await?;
        said.refused(2, &["sgx", "tdx", "sev-snp"])
    })
    .await
}
