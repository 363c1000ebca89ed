//! The block of our own: `x-roadstead`.

use std::collections::BTreeSet;

use alloy_primitives::B256;

use super::{
    AttestedWish, Criteria, Encrypt, Hardware, Reader, SlaWishes, Wishes, refused::AUTOSCALING,
};
use crate::pod::{
    Egress, Host, Http, Parts, Target, Tls,
    names::{address, port_number, show},
    tree::At,
};

impl Reader<'_> {
    /// Puts into `draft` what is part of the pod, and returns the rest.
    pub(super) fn block(&self, at: &At<'_>, draft: &mut Parts) -> (Wishes, Option<Encrypt>) {
        let mut wishes = Wishes::default();
        let Some(fields) = at.fields() else { return (wishes, None) };
        for (host, at) in fields.get("ingress").map(|at| at.entries()).unwrap_or_default() {
            let host = at.check(host.parse::<Host>());
            let target = self.target(&at);
            draft.ingress.extend(host.zip(target));
        }
        for (host, at) in fields.get("tls").map(|at| at.entries()).unwrap_or_default() {
            let host = at.check(host.parse::<Host>());
            let tls = self.tls(&at);
            draft.tls.extend(host.zip(tls));
        }
        draft.egress = fields.get("egress").and_then(|at| self.egress(&at));
        if let Some(price) = fields.get("price").and_then(|at| at.fields()) {
            wishes.max_price = price.get("max").and_then(|at| at.parse());
            price.finish_ours(&[]);
        }
        if let Some(at) = fields.get("providers") {
            wishes.providers = self.criteria(&at);
        }
        if let Some(at) = fields.get("sla") {
            wishes.sla = self.sla(&at);
        }
        // One that was left empty is refused, too: it would be no wish at all.
        wishes.attested = fields.raw("attested").and_then(|at| self.attested(&at));
        let encrypt = fields.get("encrypt").and_then(|at| self.encrypt(&at));
        fields.finish_ours(&[("scale", AUTOSCALING)]);
        (wishes, encrypt)
    }

    fn tls(&self, at: &At<'_>) -> Option<Tls> {
        if at.value.is_object() {
            let fields = at.fields()?;
            let hint = "name the secret that it is in";
            let secret = |name| fields.require(name, hint).and_then(|at| at.parse());
            let (certificate, key) = (secret("certificate"), secret("key"));
            fields.finish_ours(&[]);
            return Some(Tls::Own { certificate: certificate?, key: key? });
        }
        match at.text()?.as_str() {
            "dns" => Some(Tls::Dns),
            other => {
                at.fail(format!(
                    "{} is no source of a certificate; write dns, or certificate and key, or remove it",
                    show(other)
                ));
                None
            }
        }
    }

    fn egress(&self, at: &At<'_>) -> Option<Egress> {
        let fields = at.fields()?;
        let rate = fields.get("rate").and_then(|at| at.parse());
        let total = fields.get("total").and_then(|at| at.parse());
        fields.finish_ours(&[]);
        // Nothing is said by a block without either.
        Some(Egress { rate, total }).filter(|egress| *egress != Egress::default())
    }

    fn encrypt(&self, at: &At<'_>) -> Option<Encrypt> {
        if !at.value.is_object() {
            return at.truth()?.then(Encrypt::default);
        }
        let fields = at.fields()?;
        let key = fields.get("key").and_then(|at| at.text());
        let services = fields.get("services").map(|at| at.one_or_many()).unwrap_or_default();
        let services: BTreeSet<_> = services.iter().filter_map(At::parse).collect();
        fields.finish_ours(&[]);
        Some(Encrypt { key, services })
    }

    fn attested(&self, at: &At<'_>) -> Option<AttestedWish> {
        let fields = at.fields()?;
        let hardware = fields.get("kind").map(|at| hardware(&at));
        // Genuine hardware that runs anything at all proves nothing.
        let hint = "list what may run there, as `roadstead attest` shows it";
        let measurements = fields.require("measurements", hint);
        let measurements = measurements.map(|at| {
            let all: BTreeSet<_> =
                at.one_or_many().iter().filter_map(|at| measurement(at)).collect();
            if at.one_or_many().is_empty() {
                at.fail(format!("nothing would do; {hint}"));
            }
            all
        });
        let file = |name| fields.get(name).and_then(|at| at.text());
        let (collateral, oldest) = (file("collateral"), file("oldest"));
        fields.finish_ours(&[]);
        let hardware = hardware.unwrap_or(Some(Hardware::Any))?;
        Some(AttestedWish { hardware, measurements: measurements?, collateral, oldest })
    }

    fn target(&self, at: &At<'_>) -> Option<Target> {
        if !at.value.is_object() {
            return self.place(at);
        }
        let fields = at.fields()?;
        let place = fields.require("to", "write to: \"web:8080\"");
        let place = place.and_then(|at| self.place(&at));
        let protocol = fields.get("protocol").and_then(|at| http(&at)).unwrap_or_default();
        fields.finish_ours(&[]);
        Some(Target { protocol, ..place? })
    }

    fn place(&self, at: &At<'_>) -> Option<Target> {
        let text = at.text()?;
        let Some((service, port)) = text.split_once(':') else {
            at.fail(format!("{} is no target; write it as in \"web:8080\"", show(&text)));
            return None;
        };
        let service = at.check(service.parse())?;
        let port = at.check(port_number(port))?;
        Some(Target { port, protocol: Http::default(), service })
    }

    fn criteria(&self, at: &At<'_>) -> Criteria {
        let mut criteria = Criteria::default();
        let Some(fields) = at.fields() else { return criteria };
        for at in fields.get("region").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(region) = at.text() else { continue };
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if region.is_empty() || region.len() > 63 || !region.chars().all(plain) {
                at.fail(format!("{} is no region such as eu-west", show(&region)));
            } else {
                criteria.regions.insert(region);
            }
        }
        for at in fields.get("address").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(text) = at.text() else { continue };
            criteria.addresses.extend(at.check(address(&text)));
        }
        criteria.expression = fields.get("where").and_then(|at| at.parse());
        fields.finish_ours(&[(
            "spread",
            "a pod runs once; spreading comes with the keeper: remove this",
        )]);
        criteria
    }

    fn sla(&self, at: &At<'_>) -> SlaWishes {
        let Some(fields) = at.fields() else { return SlaWishes::default() };
        let time = |name| {
            let at = fields.get(name)?;
            let seconds = self.seconds(&at)?;
            // The chain keeps them in 24 bits.
            if seconds >= 1 << 24 {
                at.fail("this is longer than 194 days; write less");
                return None;
            }
            Some((seconds, at))
        };
        let (grace, full, response) = (time("grace"), time("full"), time("response"));
        if let (Some((grace, _)), Some((full, at))) = (&grace, &full)
            && full <= grace
        {
            at.fail(
                "the whole coverage is due at once with the grace or before; write more than grace",
            );
        }
        let coverage = fields.get("coverage").and_then(|at| at.parse());
        fields.finish_ours(&[]);
        let [grace, full, response] = [grace, full, response].map(|time| time.map(|(s, _)| s));
        SlaWishes { coverage, grace, full, response }
    }
}

fn hardware(at: &At<'_>) -> Option<Hardware> {
    match at.text()?.as_str() {
        "any" => Some(Hardware::Any),
        "tdx" => Some(Hardware::Tdx),
        "sev-snp" => Some(Hardware::SevSnp),
        other => {
            at.fail(format!(
                "{} is no hardware that attests; write tdx, sev-snp or any",
                show(other)
            ));
            None
        }
    }
}

fn measurement(at: &At<'_>) -> Option<B256> {
    let text = at.text()?;
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 64);
    let hash = digits.and_then(|digits| digits.parse().ok());
    if hash.is_none() {
        at.fail(format!("{} is no measurement (0x and 64 hexadecimal digits)", show(&text)));
    }
    hash
}

fn http(at: &At<'_>) -> Option<Http> {
    match at.text()?.as_str() {
        "http1" => Some(Http::Http1),
        "h2c" | "grpc" => Some(Http::H2c),
        other => {
            at.fail(format!("{} is no protocol of ingress; write http1, h2c or grpc", show(other)));
            None
        }
    }
}
