//! Orders on their way to agents. What an order is about, a job, is elsewhere.

use crate::{ComputerId, Control, ControlError, JobId, OrderId, PlanId};
use sqlx::Row;
use sqlx::any::AnyRow;

/// What an agent is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// Begin the backup that is queued.
    Start,
    /// Stop the job that runs.
    Cancel,
    /// Begin the restore that is queued.
    Restore,
}

impl OrderKind {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            OrderKind::Start => "start",
            OrderKind::Cancel => "cancel",
            OrderKind::Restore => "restore",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "start" => Ok(OrderKind::Start),
            "cancel" => Ok(OrderKind::Cancel),
            "restore" => Ok(OrderKind::Restore),
            _ => Err(ControlError::Corrupt { what: "kind of an order" }),
        }
    }
}

/// An order that an agent has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// What to do.
    pub kind: OrderKind,
    /// With which job.
    pub job: JobId,
    /// By which plan, for a backup.
    pub plan: Option<PlanId>,
    /// Of a restore: what and where to, JSON.
    pub body: String,
}

fn order(row: &AnyRow) -> Result<Order, ControlError> {
    let plan: Option<String> = row.try_get("plan_id")?;
    Ok(Order {
        id: OrderId::stored(row.try_get("id")?)?,
        kind: OrderKind::stored(row.try_get("kind")?)?,
        job: JobId::stored(row.try_get("job_id")?)?,
        plan: plan.as_deref().map(PlanId::stored).transpose()?,
        body: row.try_get("body")?,
    })
}

impl Control {
    /// What waits for a computer's agent, the oldest first, and the version of its plans.
    pub async fn waiting_orders(&self, computer: &ComputerId, limit: u32) -> Result<(i64, Vec<Order>), ControlError> {
        let version: Option<i64> = sqlx::query_scalar("SELECT plans_version FROM computers WHERE id = $1")
            .bind(computer.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let version = version.ok_or_else(|| ControlError::not_found("computer", &computer.to_string()))?;
        let rows = sqlx::query(
            "SELECT orders.id AS id, orders.kind AS kind, orders.job_id AS job_id, orders.body AS body, \
             jobs.plan_id AS plan_id FROM orders JOIN jobs ON jobs.id = orders.job_id \
             WHERE orders.computer_id = $1 AND orders.state IN ('waiting', 'delivered') AND orders.state = 'waiting' \
             ORDER BY orders.created_ns, orders.id LIMIT $2",
        )
        .bind(computer.to_string())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        Ok((version, rows.iter().map(order).collect::<Result<_, _>>()?))
    }

    /// The agent has an order and acts on it. Again, or for one that was withdrawn meanwhile, changes nothing.
    pub async fn deliver_order(&self, computer: &ComputerId, order: &OrderId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let known: Option<String> = sqlx::query_scalar("SELECT state FROM orders WHERE id = $1 AND computer_id = $2")
            .bind(order.to_string())
            .bind(computer.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        known.ok_or_else(|| ControlError::not_found("order", &order.to_string()))?;
        // Nothing more is heard about a cancellation but the end of its job.
        sqlx::query("UPDATE orders SET state = 'delivered', state_ns = $1 WHERE id = $2 AND state = 'waiting'")
            .bind(now_ns)
            .bind(order.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
