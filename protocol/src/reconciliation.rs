//! 三方对账: the statements of one transfer in, a verdict out. Pure functions: evidence, time and the
//! grant check come in as arguments. A transfer that both parties say was refused or failed is no difference.
//! Gathering the evidence, and comparing standing tables row by row, is elsewhere.

use crate::codec;
use crate::id::{JobId, NodeId, ResourceRef, TransferId};
use crate::manifest::{Counts, Manifest};
use crate::statement::{Body, Landing, Statement};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the three parties' evidence says of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Matched,
    Mismatched,
    /// One party states what the other denies, or the other's statement is known to exist and never came.
    OneSided,
    Pending,
    /// The other party has not answered for too long.
    Overdue,
    /// No grant covered it.
    Ungranted,
}

impl Verdict {
    pub const ALL: [Self; 6] =
        [Self::Matched, Self::Mismatched, Self::OneSided, Self::Pending, Self::Overdue, Self::Ungranted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Mismatched => "mismatched",
            Self::OneSided => "one_sided",
            Self::Pending => "pending",
            Self::Overdue => "overdue",
            Self::Ungranted => "ungranted",
        }
    }
    pub fn zh(self) -> &'static str {
        match self {
            Self::Matched => "一致",
            Self::Mismatched => "不一致",
            Self::OneSided => "单边",
            Self::Pending => "待对账",
            Self::Overdue => "逾期未回",
            Self::Ungranted => "未经授权",
        }
    }
    /// Whether somebody has to explain it; pending is no difference.
    pub fn is_difference(self) -> bool {
        matches!(self, Self::Mismatched | Self::OneSided | Self::Overdue | Self::Ungranted)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Verdict {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text).ok_or(())
    }
}

/// Whom to ask about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    Provider,
    Consumer,
    Both,
}

impl Party {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Consumer => "consumer",
            Self::Both => "both",
        }
    }
    pub fn zh(self) -> &'static str {
        match self {
            Self::Provider => "提供方",
            Self::Consumer => "使用方",
            Self::Both => "双方",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing on which the two statements differ, as text for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub what: String,
    pub provider: String,
    pub consumer: String,
}

/// 对账差异.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// None for a deep reconciliation, which compares what stands, not one transfer.
    pub transfer: Option<TransferId>,
    pub job: JobId,
    pub resource: ResourceRef,
    pub provider: NodeId,
    pub consumer: NodeId,
    pub party: Party,
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// Keys of differing rows, of a deep reconciliation.
    #[serde(default)]
    pub keys: Vec<String>,
    /// When the first evidence of it came.
    pub since: Timestamp,
}

/// A statement and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    pub statement: &'a Statement,
    pub at: Timestamp,
}

/// Everything known of one transfer, in any order, repeats harmless.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub statements: &'a [Arrived<'a>],
    /// Whether the centre has included the consumer's statement. The centre itself passes true.
    pub proven: bool,
}

/// The answer to [`judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// A transfer with a verdict; a finding where it is a difference or pending.
    Verdict(Verdict, Option<Box<Finding>>),
    /// Both parties say it ended without a landing: refused or failed, nothing to balance.
    Ended,
    /// There is no statement about a transfer here.
    Nothing,
}

impl Judgement {
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Verdict(verdict, _) => Some(*verdict),
            Self::Ended | Self::Nothing => None,
        }
    }
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Verdict(_, finding) => finding.as_deref(),
            Self::Ended | Self::Nothing => None,
        }
    }
}

/// Judges one transfer. `overdue_after_ms` counts from the first statement; `granted` tells whether a
/// grant covered what a manifest hands over.
pub fn judge(
    evidence: Evidence<'_>,
    now: Timestamp,
    overdue_after_ms: i64,
    granted: &dyn Fn(&Manifest) -> bool,
) -> Judgement {
    let Some(sides) = Sides::sort(evidence.statements) else { return Judgement::Nothing };
    let late = now.since_ms(sides.since) > overdue_after_ms;
    let (verdict, party, differences) = match (sides.handed_over, sides.landed) {
        (Some((provider, manifest)), Some(landing)) => {
            let differences = differences(provider, manifest, landing);
            if !granted(manifest) {
                (Verdict::Ungranted, Party::Provider, differences)
            } else if !differences.is_empty() {
                (Verdict::Mismatched, whose(&differences), differences)
            } else if evidence.proven {
                (Verdict::Matched, Party::Both, differences)
            } else {
                (Verdict::Pending, Party::Both, differences)
            }
        }
        (Some((_, manifest)), None) if !granted(manifest) => (Verdict::Ungranted, Party::Provider, Vec::new()),
        // Handed over, and the taker says that nothing landed: settled once the provider says so too.
        (Some(_), None) if sides.consumer_ended && sides.provider_ended => return Judgement::Ended,
        (Some(_), None) if sides.consumer_ended && late => (Verdict::OneSided, Party::Provider, sides.denied()),
        (Some(_), None) if late => (Verdict::Overdue, Party::Consumer, Vec::new()),
        (Some(_), None) => (Verdict::Pending, Party::Consumer, Vec::new()),
        // Landed, and the provider denies it, or its statement, which the landing names, never came.
        (None, Some(_)) if sides.provider_ended || late => (Verdict::OneSided, Party::Provider, sides.denied()),
        (None, Some(_)) => (Verdict::Pending, Party::Provider, Vec::new()),
        (None, None) if sides.provider_ended && sides.consumer_ended => return Judgement::Ended,
        (None, None) => {
            let missing = if sides.provider_ended { Party::Consumer } else { Party::Provider };
            (if late { Verdict::OneSided } else { Verdict::Pending }, missing, Vec::new())
        }
    };
    let finding = (verdict != Verdict::Matched).then(|| {
        Box::new(Finding {
            verdict,
            transfer: Some(sides.transfer.clone()),
            job: sides.job.clone(),
            resource: sides.resource.clone(),
            provider: sides.provider.clone(),
            consumer: sides.consumer.clone(),
            party,
            differences,
            keys: Vec::new(),
            since: sides.since,
        })
    });
    Judgement::Verdict(verdict, finding)
}

/// Where the consumer's statement is not what the provider's hands over; empty when they agree.
/// What each party states is compared with what the other states and with its own sums.
pub fn differences(provider: &Statement, manifest: &Manifest, landing: &Landing) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    found.compare("transfer", &manifest.transfer, &landing.transfer);
    found.compare("job", &manifest.job, &landing.job);
    found.compare("resource", &manifest.resource, &landing.resource);
    found.compare("provider", &manifest.provider, &landing.provider);
    found.compare("consumer", &manifest.consumer, &landing.consumer);
    found.compare(
        "provider statement",
        &hex::encode(provider.sha256()),
        &hex::encode(*landing.provider_statement_sha256),
    );
    found.compare(
        "manifest",
        &hex::encode(codec::sha256(&codec::encode(manifest))),
        &hex::encode(*landing.manifest_sha256),
    );
    found.compare("content root", &hex::encode(*manifest.content_root), &hex::encode(*landing.content_root));
    found.compare("left out", &optional(&manifest.left_out_sha256), &optional(&landing.left_out_sha256));
    let (sent, got) = (&manifest.counts, &landing.counts);
    found.compare("rows", &sent.rows_sent, &got.rows_landed.saturating_add(got.rows_quarantined));
    let operations = |counts: &Counts| counts.operations.map_or_else(String::new, |operations| operations.to_string());
    found.compare("operations", &operations(sent), &operations(got));
    found.compare("files", &sent.files, &got.files);
    found.compare("directories", &sent.directories, &got.directories);
    found.compare("links", &sent.links, &got.links);
    found.compare("refused", &sent.refused, &got.refused);
    found.compare("bytes", &sent.bytes, &got.bytes);
    // A row that the consumer quarantined is in the provider's digest and cannot be in the consumer's.
    if got.rows_quarantined == 0 {
        found.compare("row digest", &optional(&manifest.digest_commitment), &optional(&landing.digest_commitment));
    }
    let accounted = sent.rows_sent.saturating_add(sent.rows_filtered).saturating_add(sent.rows_quarantined);
    if sent.rows_read != accounted {
        found.0.push(Difference {
            what: PROVIDER_SUM.to_owned(),
            provider: format!("{} read, {accounted} accounted for", sent.rows_read),
            consumer: String::new(),
        });
    }
    found.0
}

/// How many transfers of a day had which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub matched: u64,
    pub mismatched: u64,
    pub one_sided: u64,
    pub pending: u64,
    pub overdue: u64,
    pub ungranted: u64,
}

impl Tally {
    pub fn add(&mut self, verdict: Verdict) {
        let slot = match verdict {
            Verdict::Matched => &mut self.matched,
            Verdict::Mismatched => &mut self.mismatched,
            Verdict::OneSided => &mut self.one_sided,
            Verdict::Pending => &mut self.pending,
            Verdict::Overdue => &mut self.overdue,
            Verdict::Ungranted => &mut self.ungranted,
        };
        *slot = slot.saturating_add(1);
    }
    /// Whether anything is left to explain: exit code 3.
    pub fn has_differences(&self) -> bool {
        self.mismatched > 0 || self.one_sided > 0 || self.overdue > 0 || self.ungranted > 0
    }
}

/// The statements of one transfer, sorted by who says what.
struct Sides<'a> {
    handed_over: Option<(&'a Statement, &'a Manifest)>,
    landed: Option<&'a Landing>,
    provider_ended: bool,
    consumer_ended: bool,
    ending: Option<&'a str>,
    transfer: &'a TransferId,
    job: &'a JobId,
    resource: &'a ResourceRef,
    provider: &'a NodeId,
    consumer: &'a NodeId,
    since: Timestamp,
}

impl<'a> Sides<'a> {
    fn sort(statements: &'a [Arrived<'a>]) -> Option<Self> {
        // The provider's word names the parties where there is one; then the order of arrival decides.
        let mut about: Vec<&Arrived<'a>> =
            statements.iter().filter(|a| a.statement.body().transfer().is_some()).filter(|a| is_a_party(a)).collect();
        about.sort_by_key(|a| (a.statement.manifest().is_none(), a.at, *a.statement.sha256()));
        let body = about.first()?.statement.body();
        let ((provider, consumer), transfer) = (body.parties()?, body.transfer()?);
        let mut sides = Self {
            handed_over: None,
            landed: None,
            provider_ended: false,
            consumer_ended: false,
            ending: None,
            transfer,
            job: body.job()?,
            resource: body.resource()?,
            provider,
            consumer,
            since: about.iter().map(|a| a.at).min()?,
        };
        for Arrived { statement, .. } in about {
            match statement.body() {
                Body::Provider(_, manifest) if sides.handed_over.is_none() => {
                    sides.handed_over = Some((statement, manifest));
                }
                Body::Consumer(_, landing) if sides.landed.is_none() => sides.landed = Some(landing),
                Body::Refusal(_, ending) | Body::Failure(_, ending) => {
                    sides.ending = Some(&ending.cause);
                    sides.provider_ended |= statement.issuer() == sides.provider;
                    sides.consumer_ended |= statement.issuer() == sides.consumer;
                }
                _ => {}
            }
        }
        Some(sides)
    }

    /// What the one side says and the other denies.
    fn denied(&self) -> Vec<Difference> {
        let ended = self.ending.unwrap_or("no statement").to_owned();
        let (provider, consumer) = match (self.handed_over.is_some(), self.landed.is_some()) {
            (true, _) => ("handed over".to_owned(), ended),
            (false, true) => (ended, "landed".to_owned()),
            (false, false) => return Vec::new(),
        };
        vec![Difference { what: "outcome".to_owned(), provider, consumer }]
    }
}

/// Not a relay's, which stands beside what the two say.
fn is_a_party(arrived: &Arrived<'_>) -> bool {
    !matches!(arrived.statement.body(), Body::Passage(..))
}

struct Found(Vec<Difference>);

impl Found {
    fn compare<T: PartialEq + fmt::Display>(&mut self, what: &str, provider: &T, consumer: &T) {
        if provider != consumer {
            self.0.push(Difference {
                what: what.to_owned(),
                provider: provider.to_string(),
                consumer: consumer.to_string(),
            });
        }
    }
}

/// The provider alone where its own sum is wrong; otherwise the consumer, whose statement has to
/// repeat what it was handed, is asked first.
fn whose(differences: &[Difference]) -> Party {
    let own = differences.iter().filter(|difference| difference.what == PROVIDER_SUM).count();
    match (own, differences.len() - own) {
        (0, _) => Party::Consumer,
        (_, 0) => Party::Provider,
        _ => Party::Both,
    }
}

fn optional(hash: &Option<minicbor::bytes::ByteArray<32>>) -> String {
    hash.as_ref().map(|hash| hex::encode(**hash)).unwrap_or_default()
}

const PROVIDER_SUM: &str = "rows read";
