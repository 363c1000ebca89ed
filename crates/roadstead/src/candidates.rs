//! Which providers come into question.
//!
//! Addresses are found in one place, facts are read in another: whoever names a provider, what is known of it comes from the
//! chain, and it is judged by that.

mod named;

use std::collections::BTreeSet;

use alloy::primitives::Address;
use anyhow::{Context as _, bail, ensure};
use chain::{Chain, abi::IRegistry::ProviderView};
use protocol::{
    amount::Amount,
    criteria::{Facts, Name, Search, Why, fits, why_not},
};
use reqwest::Url;
use serde::Deserialize;

use crate::{market::price_list, output};

/// What an expression may name that no contract counts, so that only a market says it.
const COUNTED: [Name; 3] = [Name::Leases, Name::OpenLeases, Name::Dark];

/// How many providers an error tells of.
const TOLD: usize = 5;

/// A provider with what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Its listing.
    pub(crate) view: ProviderView,
    /// By what it is judged.
    pub(crate) facts: Facts,
}

/// Candidates that were judged.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Those that come into question.
    pub(crate) fit: Vec<Candidate>,
    /// The others, each with all that excludes it.
    pub(crate) unfit: Vec<(Candidate, Vec<Why>)>,
}

impl Candidate {
    /// What its listing says of a provider, at the chain's time `now`.
    pub(crate) fn new(provider: Address, view: ProviderView, now: u64) -> Self {
        let facts = Facts {
            provider,
            region: view.listing.region.clone(),
            prices: price_list(&view),
            measurement: view.listing.measurement,
            live: view.live,
            seen: now.saturating_sub(view.seenAt.to()),
            ..Facts::default()
        };
        Self { view, facts }
    }
}

/// A provider that may come into question, and what whoever names it says that no contract counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    pub(crate) provider: Address,
    pub(crate) leases: Option<u64>,
    pub(crate) open_leases: Option<u64>,
    pub(crate) dark: Option<u64>,
}

impl Found {
    /// A provider of which nothing is said.
    pub(crate) fn plain(provider: Address) -> Self {
        Self { provider, leases: None, open_leases: None, dark: None }
    }
}

/// All who may come into question, with what `needs` names of them as the chain tells it: whom the market at `market` names,
/// if there is one and it is of use, else everybody who is listed. With `others`, also those whom the market excludes. Where
/// `needs` names what a market alone knows, nobody is looked for anywhere else: if none of those that it names comes into
/// question, the others are there, too, so that it can be told why.
pub(crate) async fn known(
    chain: &Chain,
    market: Option<&str>,
    search: &Search,
    needs: &BTreeSet<Name>,
    others: bool,
) -> anyhow::Result<Vec<Candidate>> {
    if let Some(market) = market {
        let place = named::place(market)?;
        let answer = of_market(chain, &place, search, needs, others).await;
        let is_any = |known: &[Candidate]| known.iter().any(|one| fits(search, &one.facts));
        if let Some(name) = counted(needs) {
            let known = match answer {
                Ok(known) if others || is_any(&known) => Ok(known),
                Ok(_nobody) => of_market(chain, &place, search, needs, true).await,
                Err(err) => Err(err),
            };
            let known = known.with_context(|| {
                format!(
                    "the expression names {}, which only a market counts, and the one at {market} is not of use",
                    name.as_str()
                )
            })?;
            ensure!(
                !known.is_empty(),
                "the market at {market} names nobody who is listed on this chain"
            );
            return Ok(known);
        }
        let why = match answer {
            Ok(known) if is_any(&known) => return Ok(known),
            Ok(known) => {
                format!(
                    "by what the chain says, none of the {} that it names comes into question",
                    known.len()
                )
            }
            Err(err) => output::causes(&err),
        };
        let why = output::tame(&why);
        eprintln!(
            "note: the market at {market} is not of use ({why}); looking at everybody on the chain"
        );
    }
    let listed = chain.ever_listed().await?.into_iter().map(Found::plain).collect();
    read(chain, search, listed, needs).await
}

async fn of_market(
    chain: &Chain,
    market: &Url,
    search: &Search,
    needs: &BTreeSet<Name>,
    others: bool,
) -> anyhow::Result<Vec<Candidate>> {
    let mut found = named::named(market, search, true).await?;
    if others {
        found.extend(named::named(market, search, false).await?);
    }
    // One that is named twice is one.
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert(one.provider));
    ensure!(
        found.is_empty()
            || counted(needs).is_none()
            || found.iter().any(|one| one.leases.is_some()),
        "it does not say how many leases the providers had"
    );
    read(chain, search, found, needs).await
}

/// Reads what `needs` names of those of `found` that are listed: listings always, bonds and vouches where they are needed.
pub(crate) async fn read(
    chain: &Chain,
    search: &Search,
    found: Vec<Found>,
    needs: &BTreeSet<Name>,
) -> anyhow::Result<Vec<Candidate>> {
    knowable(needs, search, &found)?;
    let providers: Vec<Address> = found.iter().map(|one| one.provider).collect();
    let now = chain.head().await?.timestamp;
    let views = chain.listings(&providers).await?;
    let listed = found.into_iter().zip(views).filter(|(_found, view)| view.listed);
    let candidates = listed.map(|(found, view)| {
        let mut candidate = Candidate::new(found.provider, view, now);
        let facts = &mut candidate.facts;
        (facts.leases, facts.open_leases, facts.dark) =
            (found.leases, found.open_leases, found.dark);
        candidate
    });
    let mut candidates: Vec<_> = candidates.collect();
    let of: Vec<_> = candidates.iter().map(|candidate| candidate.facts.provider).collect();
    if needs.contains(&Name::FreeStake) || needs.contains(&Name::Bonded) {
        let bonds = chain.bonds(&of).await?;
        for (candidate, (bond, lockable)) in candidates.iter_mut().zip(bonds) {
            let free = if lockable { bond.bonded.saturating_sub(bond.locked) } else { 0 };
            candidate.facts.bonded = Some(Amount(bond.bonded));
            candidate.facts.free_stake = Some(Amount(free));
        }
    }
    if needs.contains(&Name::Vouched) {
        let attributes = search.attributes().into_keys().collect();
        let mut vouches = chain.vouches(attributes, now).await?;
        for Candidate { facts, .. } in &mut candidates {
            facts.vouches = Some(vouches.remove(&facts.provider).unwrap_or_default());
        }
    }
    Ok(candidates)
}

/// What of `needs` is known from a market alone.
fn counted(needs: &BTreeSet<Name>) -> Option<Name> {
    COUNTED.into_iter().find(|name| needs.contains(name))
}

/// An expression that names what nobody can tell here is refused, rather than that it excludes everybody.
fn knowable(needs: &BTreeSet<Name>, search: &Search, found: &[Found]) -> anyhow::Result<()> {
    ensure!(
        search.resources.is_some() || !needs.contains(&Name::Price),
        "the expression names price, which is what a pod costs; say which pod, with --for FILE"
    );
    // Where there is nobody, nothing is missing of anybody.
    let is_told = found.is_empty() || found.iter().any(|one| one.leases.is_some());
    if let Some(name) = counted(needs).filter(|_name| !is_told) {
        bail!(
            "the expression names {}, which the contracts do not count, so it is not known from the chain; leave it out, or \
             ask a market, with --market URL",
            name.as_str()
        );
    }
    Ok(())
}

/// Parts those who come into question from those who do not.
pub(crate) fn judge(search: &Search, candidates: Vec<Candidate>) -> Judged {
    let mut judged = Judged::default();
    for candidate in candidates {
        match why_not(search, &candidate.facts) {
            whys if whys.is_empty() => judged.fit.push(candidate),
            whys => judged.unfit.push((candidate, whys)),
        }
    }
    judged
}

impl Judged {
    /// Those that come into question, or why none does.
    pub(crate) fn fit(self) -> anyhow::Result<Vec<Candidate>> {
        if !self.fit.is_empty() {
            return Ok(self.fit);
        }
        let listed = self.unfit.len();
        ensure!(listed != 0, "no provider is listed on this chain yet");
        let told = self.unfit.iter().take(TOLD).map(|(candidate, whys)| {
            let whys: Vec<_> = whys.iter().map(|why| why.text.as_str()).collect();
            format!("\n{}: {}", candidate.facts.provider, whys.join("; "))
        });
        let told: String = told.collect();
        let more = match listed.checked_sub(TOLD) {
            None | Some(0) => "",
            Some(_) => "\n`roadstead providers --for FILE --why-not` tells of all",
        };
        bail!("none of the {listed} listed providers comes into question:{told}{more}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy::primitives::aliases::U40;
    use chain::abi::IRegistry::{Listing, Prices};
    use protocol::{
        amount::Token,
        criteria::Expression,
        pod::{Criteria, Wishes},
        resources::{Cpu, Resources},
    };

    use super::*;

    fn address(byte: u8) -> Address {
        Address::repeat_byte(byte)
    }

    fn token() -> Token {
        Token { symbol: "USD".into(), decimals: 6 }
    }

    fn listed(byte: u8, region: &str, live: bool) -> Candidate {
        let prices = Prices { cpu: 5_555_555_555, ..Prices::default() };
        let listing = Listing { region: region.into(), prices, ..Listing::default() };
        let seen = U40::from(1_000);
        let view = ProviderView { listing, version: 1, seenAt: seen, listed: true, live };
        Candidate::new(address(byte), view, 1_040)
    }

    fn all() -> Vec<Candidate> {
        vec![
            listed(1, "eu-west", true),
            listed(2, "EU-North", true),
            listed(3, "us-east", true),
            listed(4, "eu-west", false),
        ]
    }

    fn search(criteria: Criteria) -> Search {
        let wishes = Wishes { providers: criteria, ..Wishes::default() };
        let pod = Resources { cpu: Cpu(1), ..Resources::default() };
        Search::new(&wishes, Some(pod), &token()).expect("a search")
    }

    #[test]
    fn providers_are_chosen_by_what_the_file_says() {
        let check = |criteria: Criteria, wanted: &[u8]| {
            let fit = judge(&search(criteria), all()).fit;
            let fit: Vec<_> = fit.into_iter().map(|candidate| candidate.facts.provider).collect();
            assert_eq!(fit, wanted.iter().map(|byte| address(*byte)).collect::<Vec<_>>());
        };
        let regions = |names: &[&str]| Criteria {
            regions: names.iter().map(|name| name.to_string()).collect(),
            ..Criteria::default()
        };
        let expression = |text: &str| Criteria {
            expression: Some(text.parse().expect("an expression")),
            ..Criteria::default()
        };
        check(Criteria::default(), &[1, 2, 3]);
        check(regions(&["eu-west"]), &[1]);
        check(regions(&["eu-west", "eu-north"]), &[1, 2]);
        check(regions(&["mars"]), &[]);
        check(Criteria { addresses: [address(3), address(4)].into(), ..Criteria::default() }, &[3]);
        check(expression("region.startsWith(\"eu\") && price <= 0.02 && seen == 40"), &[1, 2]);
        check(expression("price < 0.02"), &[]);
    }

    #[test]
    fn it_is_told_why_nobody_comes_into_question() {
        let none = Judged::default().fit().unwrap_err().to_string();
        assert!(none.contains("no provider is listed"), "{none}");
        let mut many = all();
        let search = search(Criteria { regions: ["mars".into()].into(), ..Criteria::default() });
        let few = judge(&search, many.clone()).fit().unwrap_err().to_string();
        assert!(few.contains("none of the 4") && !few.contains("--why-not"), "{few}");
        let whys = format!(
            "{}: it was last heard of 40 s ago; region is \"eu-west\", and mars is wanted",
            address(4)
        );
        assert!(few.contains(&whys), "{few}");
        many.extend([listed(5, "venus", true), listed(6, "pluto", true)]);
        let many = judge(&search, many).fit().unwrap_err().to_string();
        assert!(many.contains("venus") && !many.contains("pluto"), "{many}");
        assert!(many.contains("--why-not"), "{many}");
    }

    #[test]
    fn what_the_chain_does_not_tell_is_no_criterion() {
        let check = |text: &str, pod: Option<Resources>, wanted: Result<(), &str>| {
            let expression = Expression::parse(text, &token()).expect("an expression");
            let search = Search {
                expressions: vec![expression],
                resources: pod,
                ..search(Criteria::default())
            };
            let plain = [Found::plain(address(1))];
            let got = knowable(&search.needs(), &search, &plain).map_err(|err| err.to_string());
            match wanted {
                Ok(()) => assert_eq!(got, Ok(()), "{text}"),
                Err(wanted) => assert!(got.as_ref().unwrap_err().contains(wanted), "{got:?}"),
            }
        };
        let pod = Some(Resources::default());
        check("price < 1 && bonded > 1 && vouched(\"a\") && seen < 1", pod, Ok(()));
        check("bonded > 1 && attested()", None, Ok(()));
        check("region == \"eu\" || price < 1", None, Err("--for FILE"));
        check("seen < 60 || leases > 1", pod, Err("leases"));
        check("!(dark > 1)", pod, Err("dark"));
        let expressions = vec![Expression::parse("leases > 1", &token()).expect("an expression")];
        let search = Search { expressions, ..search(Criteria::default()) };
        let counted = [Found { leases: Some(2), ..Found::plain(address(1)) }];
        assert!(knowable(&search.needs(), &search, &counted).is_ok());
        assert!(knowable(&search.needs(), &search, &[]).is_ok());
        let coverage = Search { coverage: Amount(1), ..self::search(Criteria::default()) };
        assert_eq!(coverage.needs(), BTreeSet::from([Name::FreeStake]));
    }
}
