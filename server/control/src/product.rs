//! What can be bought.

use crate::audit_log::record;
use crate::error::exists;
use crate::{Actor, Control, ControlError, Deed, ProductId, TenantId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::str::FromStr;

/// Longest term behind the first booking, months.
const TERM_MONTHS_MAX: i64 = 12;
const USERS_MAX: i64 = 100_000;
const DAYS_MAX: i64 = 3660;

/// By what a product is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Space, GiB as stored.
    Gib,
    /// Computers.
    Computer,
    /// Users.
    User,
}

impl Unit {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::Gib => "gib",
            Unit::Computer => "computer",
            Unit::User => "user",
        }
    }
}

impl FromStr for Unit {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "gib" => Ok(Unit::Gib),
            "computer" => Ok(Unit::Computer),
            "user" => Ok(Unit::User),
            _ => Err(ControlError::Invalid { what: "unit", rule: "must be gib, computer or user" }),
        }
    }
}

/// What a product says of exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportTerms {
    /// Days from one request to the next of the same plan.
    pub wait_days: i64,
    /// Days for which one is there.
    pub kept_days: i64,
    /// Nobody has to release them.
    pub is_automatic: bool,
}

impl Default for ExportTerms {
    fn default() -> Self {
        ExportTerms { wait_days: 28, kept_days: 10, is_automatic: false }
    }
}

impl ExportTerms {
    const fn release(self) -> &'static str {
        if self.is_automatic { "automatic" } else { "operator" }
    }
}

/// What a product is, besides its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductTerms {
    /// Unique name.
    pub name: String,
    /// By what it is sold.
    pub unit: Unit,
    /// Price of one unit and term, in the currency's smallest unit.
    pub price_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// Most users that a trial protects.
    pub trial_users: i64,
    /// How long a trial is good, days.
    pub trial_days: i64,
    /// How long a paid licence is good at most, months behind its booking.
    pub term_months: i64,
    /// Space above the quantity before the hard quota, percent.
    pub overage_percent: i64,
    /// How long the data of an ended service is kept, days.
    pub kept_days: i64,
    /// Exports of databases.
    pub exports: ExportTerms,
    /// Names of what belongs to it.
    pub features: Vec<String>,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// What it is.
    pub terms: ProductTerms,
    /// Since when it is not sold any more, nanoseconds since 1970.
    pub retired_ns: Option<i64>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

pub(crate) fn product(row: &AnyRow) -> Result<Product, ControlError> {
    let corrupt = |what| move |_| ControlError::Corrupt { what };
    let features: String = row.try_get("features")?;
    let unit: String = row.try_get("unit")?;
    Ok(Product {
        id: ProductId::stored(&row.try_get::<String, _>("id")?)?,
        terms: ProductTerms {
            name: row.try_get("name")?,
            unit: unit.parse().map_err(corrupt("unit of a product"))?,
            price_minor: row.try_get("price_minor")?,
            currency: row.try_get("currency")?,
            trial_users: row.try_get("trial_users")?,
            trial_days: row.try_get("trial_days")?,
            term_months: row.try_get("term_months")?,
            overage_percent: row.try_get("overage_percent")?,
            kept_days: row.try_get("kept_days")?,
            exports: ExportTerms {
                wait_days: row.try_get("export_wait_days")?,
                kept_days: row.try_get("export_kept_days")?,
                is_automatic: row.try_get::<String, _>("export_release")? == "automatic",
            },
            features: serde_json::from_str(&features)
                .map_err(|_| ControlError::Corrupt { what: "features of a product" })?,
        },
        retired_ns: row.try_get("retired_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

fn check(terms: &ProductTerms) -> Result<(), ControlError> {
    crate::account::check_name("product name", &terms.name)?;
    let wrong = |what, rule| Err(ControlError::Invalid { what, rule });
    if terms.currency.len() != 3 || !terms.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return wrong("currency", "must be three capital letters");
    }
    if terms.price_minor < 0 {
        return wrong("price", "must not be negative");
    }
    if !(1..=USERS_MAX).contains(&terms.trial_users) {
        return wrong("trial_users", "must be 1 to 100000");
    }
    if !(1..=DAYS_MAX).contains(&terms.trial_days) || !(0..=DAYS_MAX).contains(&terms.kept_days) {
        return wrong("days", "must be at most 3660, and at least 1 of a trial");
    }
    if !(1..=TERM_MONTHS_MAX).contains(&terms.term_months) {
        return wrong("term_months", "must be 1 to 12");
    }
    if !(0..=100).contains(&terms.overage_percent) {
        return wrong("overage_percent", "must be 0 to 100");
    }
    let ExportTerms { wait_days, kept_days, .. } = terms.exports;
    if !(0..=DAYS_MAX).contains(&wait_days) || !(1..=DAYS_MAX).contains(&kept_days) {
        return wrong("exports", "days must be at most 3660, and at least 1 of availability");
    }
    let is_word = |word: &String| {
        !word.is_empty() && word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    if terms.features.len() > 64 || !terms.features.iter().all(is_word) {
        return wrong("features", "must be at most 64 words of small letters and underscores");
    }
    Ok(())
}

fn deed(id: &ProductId, before: Option<&ProductTerms>, after: Option<&ProductTerms>) -> Deed<'static> {
    let json = |terms: &ProductTerms| {
        serde_json::json!({
            "name": terms.name, "unit": terms.unit.as_str(), "price_minor": terms.price_minor,
            "currency": terms.currency, "trial_users": terms.trial_users, "trial_days": terms.trial_days,
            "term_months": terms.term_months, "overage_percent": terms.overage_percent, "kept_days": terms.kept_days,
            "export_wait_days": terms.exports.wait_days, "export_kept_days": terms.exports.kept_days,
            "export_release": terms.exports.release(), "features": terms.features,
        })
    };
    Deed {
        tenant: TenantId::PLATFORM,
        user: None,
        verb: "product.edit",
        object: format!("product {id}"),
        before: before.map(json),
        after: after.map(json),
    }
}

/// One product, in somebody's transaction.
pub(crate) async fn find_product(connection: &mut AnyConnection, id: &ProductId) -> Result<Product, ControlError> {
    let row = sqlx::query("SELECT * FROM products WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| ControlError::not_found("product", &id.to_string()))?;
    product(&row)
}

impl Control {
    /// All products, also those no longer sold, by name.
    pub async fn products(&self) -> Result<Vec<Product>, ControlError> {
        let rows = sqlx::query("SELECT * FROM products ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(product).collect()
    }

    /// Makes a product. [`ControlError::Exists`] when the name is taken.
    pub async fn create_product(
        &self,
        actor: &Actor,
        terms: &ProductTerms,
        now_ns: i64,
    ) -> Result<Product, ControlError> {
        check(terms)?;
        let id = ProductId::generate()?;
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO products (id, name, unit, price_minor, currency, trial_users, trial_days, term_months, \
             overage_percent, kept_days, features, created_ns, export_wait_days, export_kept_days, export_release) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(id.to_string())
        .bind(&terms.name)
        .bind(terms.unit.as_str())
        .bind(terms.price_minor)
        .bind(&terms.currency)
        .bind(terms.trial_users)
        .bind(terms.trial_days)
        .bind(terms.term_months)
        .bind(terms.overage_percent)
        .bind(terms.kept_days)
        .bind(serde_json::json!(terms.features).to_string())
        .bind(now_ns)
        .bind(terms.exports.wait_days)
        .bind(terms.exports.kept_days)
        .bind(terms.exports.release())
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("product", &terms.name, error))?;
        record(&mut transaction, actor, deed(&id, None, Some(terms)), now_ns).await?;
        transaction.commit().await?;
        Ok(Product { id, terms: terms.clone(), retired_ns: None, created_ns: now_ns })
    }

    /// Changes a product for what is booked from now on: licences that run keep their days. Its unit stays, since
    /// quantities are counted in it.
    pub async fn edit_product(
        &self,
        actor: &Actor,
        id: &ProductId,
        terms: &ProductTerms,
        retired: bool,
        now_ns: i64,
    ) -> Result<Product, ControlError> {
        check(terms)?;
        let mut transaction = self.write().await?;
        let before = find_product(&mut transaction, id).await?;
        if before.terms.unit != terms.unit {
            return Err(ControlError::Invalid { what: "unit", rule: "stays as it is; make another product" });
        }
        let retired_ns = retired.then(|| before.retired_ns.unwrap_or(now_ns));
        sqlx::query(
            "UPDATE products SET name = $1, price_minor = $2, currency = $3, trial_users = $4, trial_days = $5, \
             term_months = $6, overage_percent = $7, kept_days = $8, features = $9, retired_ns = $10, export_wait_days = $11, \
             export_kept_days = $12, export_release = $13 WHERE id = $14",
        )
        .bind(&terms.name)
        .bind(terms.price_minor)
        .bind(&terms.currency)
        .bind(terms.trial_users)
        .bind(terms.trial_days)
        .bind(terms.term_months)
        .bind(terms.overage_percent)
        .bind(terms.kept_days)
        .bind(serde_json::json!(terms.features).to_string())
        .bind(retired_ns)
        .bind(terms.exports.wait_days)
        .bind(terms.exports.kept_days)
        .bind(terms.exports.release())
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("product", &terms.name, error))?;
        record(&mut transaction, actor, deed(id, Some(&before.terms), Some(terms)), now_ns).await?;
        transaction.commit().await?;
        Ok(Product { id: *id, terms: terms.clone(), retired_ns, created_ns: before.created_ns })
    }
}
