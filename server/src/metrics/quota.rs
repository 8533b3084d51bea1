//! Metrics of quotas: how many limits stand where, never whose.

use super::gauge;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use store::{QuotaKind, QuotaReading};

/// A limit is almost full above this share of it, in hundredths.
const ALMOST_FULL_PERCENT: u64 = 95;

/// Gauges and counters of quotas.
#[derive(Clone)]
pub(super) struct QuotaMetrics {
    limits: IntGaugeVec,
    reserved: IntGaugeVec,
    refusals: IntCounter,
}

impl QuotaMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let limits = IntGaugeVec::new(
            Opts::new(
                "holdfast_quota_limits",
                "Limits by kind and state: set, soft_exceeded, almost_full (95 % of the hard limit), full",
            ),
            &["kind", "state"],
        )?;
        registry.register(Box::new(limits.clone()))?;
        let reserved = IntGaugeVec::new(
            Opts::new("holdfast_quota_reserved_bytes", "Largest reservation under one limit, by kind"),
            &["kind"],
        )?;
        registry.register(Box::new(reserved.clone()))?;
        let refusals = IntCounter::new("holdfast_quota_refusals_total", "Requests of uploads that a quota refused")?;
        registry.register(Box::new(refusals.clone()))?;
        Ok(QuotaMetrics { limits, reserved, refusals })
    }

    /// Sets everything from readings taken now.
    pub(super) fn set(&self, readings: &[QuotaReading], refusals: u64) {
        self.refusals.inc_by(refusals.saturating_sub(self.refusals.get()));
        for kind in [QuotaKind::Physical, QuotaKind::Logical] {
            let name = kind.to_string();
            let count =
                |is: &dyn Fn(&QuotaReading) -> bool| readings.iter().filter(|reading| is(reading)).count() as u64;
            let share = |reading: &QuotaReading, percent: u64| {
                let hard = reading.limits.hard(kind).map(u128::from);
                hard.is_some_and(|hard| u128::from(reading.used(kind)) * 100 >= hard * u128::from(percent))
            };
            let is_set =
                |reading: &QuotaReading| reading.limits.hard(kind).is_some() || reading.limits.soft(kind).is_some();
            let states = [
                ("set", count(&is_set)),
                ("soft_exceeded", count(&|reading| reading.is_soft_exceeded(kind))),
                ("almost_full", count(&|reading| share(reading, ALMOST_FULL_PERCENT))),
                ("full", count(&|reading| share(reading, 100))),
            ];
            for (state, limits) in states {
                self.limits.with_label_values(&[name.as_str(), state]).set(gauge(limits));
            }
            let reserved = readings.iter().map(|reading| match kind {
                QuotaKind::Physical => reading.reserved_physical,
                QuotaKind::Logical => reading.reserved_logical,
            });
            self.reserved.with_label_values(&[name.as_str()]).set(gauge(reserved.max().unwrap_or(0)));
        }
    }
}
