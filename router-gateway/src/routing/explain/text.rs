//! Explanations for people: in words, and in lines.

use std::fmt::{self, Display, Formatter};

use super::{Explanation, Promotion, SeenInstance};
use crate::routing::trace::{Step, VersionBy, Why};

/// Why an instance fell, with the figures of it and of those that were left.
pub(super) fn why(why: Why, seen: &SeenInstance, left: &[&SeenInstance]) -> String {
    let round_trip = |seen: &SeenInstance| seen.round_trip_ms.map_or("unknown".to_owned(), |ms| format!("{ms:.3} ms"));
    match why {
        Why::WithoutEndpoint => "has not registered this endpoint".to_owned(),
        Why::Tried => "this request has tried it in vain".to_owned(),
        Why::NotYetRoutable => "its first heartbeat is not yet acknowledged".to_owned(),
        Why::Draining => "drains".to_owned(),
        Why::LeasedOut => format!("leased out: {} of {} in flight", seen.in_flight, seen.lease),
        Why::Ejected => "ejected for failing too often, and another one is fit".to_owned(),
        Why::Unhealthy => "unhealthy, by its own word".to_owned(),
        Why::HealthUnknown => "nothing is known of its health".to_owned(),
        Why::Degraded => "degraded, and others are healthy".to_owned(),
        Why::Farther => {
            let nearest = left.first().map_or(("", 0), |first| (&first.region, first.tier));
            format!("region {} (tier {}), farther than {} (tier {})", seen.region, seen.tier, nearest.0, nearest.1)
        }
        Why::Slower => {
            let best = left.iter().copied().min_by(|a, b| {
                let known = |seen: &SeenInstance| seen.round_trip_ms.unwrap_or(f64::INFINITY);
                known(a).total_cmp(&known(b))
            });
            let best = best.map(round_trip).unwrap_or_default();
            format!("round trip {}, out of the tolerance of the best, {best}", round_trip(seen))
        }
        Why::Busier => {
            let least = left.iter().map(|left| left.in_flight).min().unwrap_or_default();
            format!("{} in flight, more than {least}", seen.in_flight)
        }
        Why::MissedMore => {
            let least = left.iter().map(|left| left.heartbeats_missed).min().unwrap_or_default();
            format!("{} heartbeats missed, more than {least}", seen.heartbeats_missed)
        }
        Why::NotItsTurn => "equal, but not its turn".to_owned(),
        Why::NotDrawn => "not drawn".to_owned(),
    }
}

const fn step(step: Step) -> &'static str {
    match step {
        Step::Available => "available",
        Step::Circuit => "circuit",
        Step::Health => "health",
        Step::Region => "region",
        Step::RoundTrip => "round trip",
        Step::InFlight => "in flight",
        Step::HeartbeatsMissed => "heartbeats missed",
        Step::Turn => "turn",
        Step::Load => "load",
        Step::Chance => "chance",
    }
}

const fn because(by: VersionBy) -> &'static str {
    match by {
        VersionBy::Header => "which the request names",
        VersionBy::ConfiguredDefault => "the default by the gateway's configuration",
        VersionBy::HighestPromoted => "the highest release that is promoted",
        VersionBy::HighestInService => "the highest release in service; none is promoted",
        VersionBy::HighestLive => "the highest live release; none is in service",
    }
}

/// Names of instances that a line shows; a version may have thousands.
const SHOWN: usize = 16;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let asked = &self.request;
        writeln!(f, "{} {}", asked.method, asked.path)?;
        if let Some(version) = &asked.version {
            writeln!(f, "  asks for   version {version}")?;
        }
        if let Some(service) = &self.service {
            writeln!(f, "  service    {service}")?;
        }
        if let Some(selected) = &self.version {
            writeln!(f, "  version    {}, {}", selected.version, because(selected.because))?;
        }
        for live in &self.versions {
            if self.version.as_ref().is_some_and(|selected| selected.version == live.version) {
                continue;
            }
            write!(f, "             {} is live too ({} instances", live.version, live.instances)?;
            match live.promotion {
                Promotion::Promoted => writeln!(f, ")")?,
                Promotion::PromotedInSeconds(seconds) => writeln!(f, "; promoted in {seconds:.0} s)")?,
                Promotion::Prerelease => writeln!(f, "; a pre-release, only by name)")?,
                Promotion::TooFewInstances => writeln!(f, "; too few are in service for its promotion)")?,
            }
        }
        if let Some(endpoint) = &self.endpoint {
            writeln!(f, "  endpoint   {} {}", endpoint.method, endpoint.path)?;
        }
        if let Some(claims) = &self.claims {
            let kinds: Vec<&str> = claims.required.iter().map(|required| required.kind.as_str()).collect();
            match (kinds.is_empty(), claims.allowed) {
                (true, _) => writeln!(f, "  claims     none are required")?,
                (false, true) => writeln!(f, "  claims     {}: held", kinds.join(", "))?,
                (false, false) => writeln!(f, "  claims     {}: not held", kinds.join(", "))?,
            }
        }
        writeln!(f, "  strategy   {}", self.strategy)?;
        self.write_instances(f)?;
        self.write_steps(f)?;
        if let Some(chosen) = &self.chosen {
            writeln!(
                f,
                "-> {} in {}, over link {} of worker {}",
                chosen.instance, chosen.region, chosen.link, chosen.worker
            )?;
        }
        if let Some(refused) = &self.refused {
            write!(f, "-> {}", refused.status)?;
            if let Some(code) = &refused.code {
                write!(f, " {code}")?;
            }
            if let Some(detail) = &refused.detail {
                write!(f, ": {detail}")?;
            }
            if let Some(allow) = &refused.allow {
                write!(f, " (Allow: {allow})")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_instances(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.instances.is_empty() {
            return Ok(());
        }
        let width = |of: fn(&SeenInstance) -> &str| self.instances.iter().map(|seen| of(seen).len()).max().unwrap_or(0);
        let (names, regions) = (width(|seen| &seen.instance), width(|seen| &seen.region));
        writeln!(f, "  instances")?;
        for seen in self.instances.iter().take(SHOWN) {
            let trip = seen.round_trip_ms.map_or("round trip unknown".to_owned(), |ms| format!("{ms:.3} ms"));
            let health = seen.health.as_str();
            write!(f, "    {:names$}  {:regions$}  {health:9}  {trip:>10}", seen.instance, seen.region)?;
            write!(f, "  {} of {} in flight", seen.in_flight, seen.lease)?;
            for (is, what) in
                [(!seen.routable, ", not yet routable"), (seen.draining, ", draining"), (seen.ejected, ", ejected")]
            {
                if is {
                    f.write_str(what)?;
                }
            }
            if seen.heartbeats_missed > 0 {
                write!(f, ", {} heartbeats missed", seen.heartbeats_missed)?;
            }
            writeln!(f)?;
        }
        if self.instances.len() > SHOWN {
            writeln!(f, "    and {} more", self.instances.len() - SHOWN)?;
        }
        Ok(())
    }

    fn write_steps(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return Ok(());
        }
        writeln!(f, "  steps")?;
        for taken in &self.steps {
            let left: Vec<&str> = taken.survivors.iter().take(SHOWN).map(String::as_str).collect();
            write!(f, "    {:17}  ", step(taken.step))?;
            match (left.is_empty(), taken.survivors.len().checked_sub(SHOWN)) {
                (true, _) => writeln!(f, "nobody is left")?,
                (false, Some(more @ 1..)) => writeln!(f, "{} and {more} more", left.join(", "))?,
                (false, _) => writeln!(f, "{}", left.join(", "))?,
            }
            for fallen in taken.fallen.iter().take(SHOWN) {
                writeln!(f, "    {:17}    without {}: {}", "", fallen.instance, fallen.detail)?;
            }
            if taken.fallen.len() > SHOWN {
                writeln!(f, "    {:17}    and without {} more", "", taken.fallen.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}
