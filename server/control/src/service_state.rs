//! How a service was bought, and the states there are. What leads from one to the next stands in `service`.

use crate::ControlError;
use std::str::FromStr;

/// How a service was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Licence {
    /// For money.
    Paid,
    /// To try it: few users, some days, once.
    Trial,
}

impl Licence {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Licence::Paid => "paid",
            Licence::Trial => "trial",
        }
    }
}

impl FromStr for Licence {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "paid" => Ok(Licence::Paid),
            "trial" => Ok(Licence::Trial),
            _ => Err(ControlError::Invalid { what: "licence", rule: "must be paid or trial" }),
        }
    }
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceState {
    /// Waits for its payment.
    Ordered,
    /// Is tried.
    Trial,
    /// Paid.
    Active,
    /// An invoice is overdue: no new backups.
    Restricted,
    /// An invoice is long overdue: log-in, payment and data export only.
    Suspended,
    /// Its time is over: no new backups.
    Expired,
    /// Was never paid.
    Cancelled,
    /// Its data is gone or going.
    Terminated,
}

impl ServiceState {
    /// All of them.
    pub const ALL: [ServiceState; 8] = [
        ServiceState::Ordered,
        ServiceState::Trial,
        ServiceState::Active,
        ServiceState::Restricted,
        ServiceState::Suspended,
        ServiceState::Expired,
        ServiceState::Cancelled,
        ServiceState::Terminated,
    ];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceState::Ordered => "ordered",
            ServiceState::Trial => "trial",
            ServiceState::Active => "active",
            ServiceState::Restricted => "restricted",
            ServiceState::Suspended => "suspended",
            ServiceState::Expired => "expired",
            ServiceState::Cancelled => "cancelled",
            ServiceState::Terminated => "terminated",
        }
    }

    pub(crate) fn stored(text: &str) -> Result<Self, ControlError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or(ControlError::Corrupt { what: "state of a service" })
    }

    /// Whether new backups are taken.
    pub const fn takes_backups(self) -> bool {
        matches!(self, ServiceState::Trial | ServiceState::Active)
    }

    /// Whether what is stored can be restored.
    pub const fn allows_restores(self) -> bool {
        matches!(self, ServiceState::Trial | ServiceState::Active | ServiceState::Restricted | ServiceState::Expired)
    }

    /// Whether it can be given to users.
    pub const fn is_given(self) -> bool {
        matches!(self, ServiceState::Ordered | ServiceState::Trial | ServiceState::Active | ServiceState::Restricted)
    }

    /// What helps where it does not take backups.
    pub const fn way_out(self) -> &'static str {
        match self {
            ServiceState::Ordered => "it opens when the order is paid",
            ServiceState::Trial | ServiceState::Active => "nothing needs to be done",
            ServiceState::Restricted => "an invoice is overdue: it opens when that is paid; restoring still works",
            ServiceState::Suspended => {
                "an invoice is long overdue: it opens when that is paid; until then log-in, payment and data export work"
            }
            ServiceState::Expired => "its time is over: renew it or order it; restoring still works",
            ServiceState::Cancelled => "it was never paid: order it again",
            ServiceState::Terminated => "it has ended and its data was destroyed: order a new one",
        }
    }
}
