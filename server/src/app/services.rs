//! What customers buy and give to their users. Rights are asked for here, rules are control's, and limits go down to the
//! store behind every change.

use crate::app::error::or_not_found;
use crate::app::quota::limit_id;
use crate::app::{Allowed, App, AppError, Principal, Target, Verb};
use control::{
    Allocation, AllocationFigures, ContactKind, ControlError, Licence, LicenceChange, NewAllocation, NewService,
    Product, ProductId, ProductTerms, QuotaScope, Scope, Service, ServiceContact, ServiceId, Share, TenantId, UserId,
    UserName,
};

/// The product of an order that names none.
const DEFAULT_PRODUCT: &str = "backup";
/// The quantity of an order that names none.
pub const DEFAULT_QUANTITY: i64 = 100;

/// An order as it comes.
#[derive(Clone, Debug)]
pub struct Order {
    /// For whom.
    pub tenant: TenantId,
    /// Id or name; the usual one when absent.
    pub product: Option<String>,
    /// In the product's unit; [`DEFAULT_QUANTITY`] when absent.
    pub quantity: Option<i64>,
    /// Last day; the latest there may be when absent.
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    pub auto_renew: bool,
}

/// A change of state that needs nothing but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceStep {
    /// Takes an unpaid order back.
    Cancel,
    /// A payment has come.
    Pay,
    /// An invoice is overdue.
    Restrict,
    /// An invoice is long overdue.
    Suspend,
    /// A further term.
    Renew,
    /// What has ended is destroyed.
    Terminate,
}

/// Who was given what, with what is stored.
#[derive(Clone, Debug)]
pub struct AllocationList {
    /// By user name, each with the bytes the user has stored.
    pub items: Vec<(Allocation, u64)>,
    /// How far it is given away.
    pub figures: AllocationFigures,
    /// What the customer has stored, bytes.
    pub used_bytes: u64,
}

impl App {
    /// All products.
    pub async fn products(&self, caller: &Principal) -> Result<Vec<Product>, AppError> {
        self.reach(caller, Verb::PRODUCT_VIEW).await?;
        Ok(self.control.products().await?)
    }

    /// Makes a product.
    pub async fn create_product(&self, caller: &Principal, terms: &ProductTerms) -> Result<Product, AppError> {
        let allowed = self.allow(caller, Verb::PRODUCT_EDIT, Target::Platform).await?;
        Ok(self.control.create_product(&allowed.actor, terms, self.clock.now_ns()).await?)
    }

    /// Changes a product for what is booked from now on.
    pub async fn edit_product(
        &self,
        caller: &Principal,
        id: ProductId,
        terms: &ProductTerms,
        retired: bool,
    ) -> Result<Product, AppError> {
        let allowed = self.allow(caller, Verb::PRODUCT_EDIT, Target::Platform).await?;
        let edited = self.control.edit_product(&allowed.actor, &id, terms, retired, self.clock.now_ns()).await;
        edited.map_err(or_not_found)
    }

    /// Services that the caller sees, oldest first.
    pub async fn services(
        &self,
        caller: &Principal,
        tenant: Option<TenantId>,
        after: Option<(i64, ServiceId)>,
        limit: u32,
    ) -> Result<Vec<Service>, AppError> {
        let allowed = self.reach(caller, Verb::SERVICE_VIEW).await?;
        Ok(self.control.services(&allowed.scope, tenant.as_ref(), after, limit).await?)
    }

    /// One service.
    pub async fn service(&self, caller: &Principal, id: ServiceId) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::SERVICE_VIEW, Target::Service(id)).await?;
        self.control.service(&allowed.scope, &id).await.map_err(or_not_found)
    }

    /// Orders a service for money.
    pub async fn order_service(&self, caller: &Principal, order: &Order) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::SERVICE_ORDER, Target::Tenant(order.tenant)).await?;
        self.place(caller, &allowed, order, Licence::Paid).await
    }

    /// Begins a trial.
    pub async fn begin_trial(&self, caller: &Principal, order: &Order) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::LICENCE_MANAGE, Target::Tenant(order.tenant)).await?;
        self.place(caller, &allowed, order, Licence::Trial).await
    }

    async fn place(
        &self,
        caller: &Principal,
        allowed: &Allowed,
        order: &Order,
        licence: Licence,
    ) -> Result<Service, AppError> {
        let new = NewService {
            tenant: order.tenant,
            product: self.product_named(order.product.as_deref()).await?,
            licence,
            quantity: order.quantity.unwrap_or(DEFAULT_QUANTITY),
            expires_on: order.expires_on.clone(),
            auto_renew: order.auto_renew,
        };
        let _one_at_a_time = self.creation.lock().await;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let orderer = caller.user();
        let made = self.control.order_service(scope, actor, &new, orderer.as_ref(), self.clock.now_ns()).await?;
        self.service_changed(made).await
    }

    /// By id or name; the usual one when nothing is named.
    pub(crate) async fn product_named(&self, named: Option<&str>) -> Result<ProductId, AppError> {
        let named = named.unwrap_or(DEFAULT_PRODUCT);
        let products = self.control.products().await?;
        let found = products.iter().find(|product| product.terms.name == named || product.id.to_string() == named);
        found
            .map(|product| product.id)
            .ok_or_else(|| AppError::Invalid(format!("product: there is no product {named}")))
    }

    /// Behind every change: limits go down, gates are asked for anew.
    async fn service_changed(&self, service: Service) -> Result<Service, AppError> {
        kill_point!(ServiceWritten);
        self.gates.forget();
        self.push_licence_quotas(&service.tenant, None).await?;
        Ok(service)
    }

    /// Moves a service on.
    pub async fn step_service(
        &self,
        caller: &Principal,
        id: ServiceId,
        step: ServiceStep,
    ) -> Result<Service, AppError> {
        let verb = match step {
            ServiceStep::Cancel => Verb::SERVICE_CANCEL,
            ServiceStep::Pay => Verb::PAYMENT_CONFIRM,
            ServiceStep::Restrict | ServiceStep::Suspend => Verb::LICENCE_MANAGE,
            ServiceStep::Renew => Verb::SERVICE_RENEW,
            ServiceStep::Terminate => Verb::SERVICE_TERMINATE,
        };
        let allowed = self.allow(caller, verb, Target::Service(id)).await?;
        let (scope, actor, now_ns) = (&allowed.scope, &allowed.actor, self.clock.now_ns());
        let _one_at_a_time = self.creation.lock().await;
        let moved = match step {
            ServiceStep::Cancel => self.control.cancel_service(scope, actor, &id, now_ns).await,
            ServiceStep::Pay => self.control.pay_service(scope, actor, &id, now_ns).await,
            ServiceStep::Restrict => self.control.restrict_service(scope, actor, &id, now_ns).await,
            ServiceStep::Suspend => self.control.suspend_service(scope, actor, &id, now_ns).await,
            ServiceStep::Renew => self.control.renew_service(scope, actor, &id, now_ns).await,
            ServiceStep::Terminate => self.control.terminate_service(scope, actor, &id, now_ns).await,
        };
        self.service_changed(moved.map_err(or_not_found)?).await
    }

    /// Buys what is tried or was.
    pub async fn buy_service(&self, caller: &Principal, id: ServiceId, quantity: i64) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::SERVICE_ORDER, Target::Service(id)).await?;
        let _one_at_a_time = self.creation.lock().await;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let bought = self.control.buy_service(scope, actor, &id, quantity, self.clock.now_ns()).await;
        self.service_changed(bought.map_err(or_not_found)?).await
    }

    /// Orders more or less of a paid service. How much a trial holds is for those who manage licences.
    pub async fn set_service_quantity(
        &self,
        caller: &Principal,
        id: ServiceId,
        quantity: Option<i64>,
        auto_renew: Option<bool>,
    ) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::SERVICE_ORDER, Target::Service(id)).await?;
        let now = self.control.service(&allowed.scope, &id).await.map_err(or_not_found)?;
        if now.licence == Licence::Trial && quantity.is_some() {
            let text = "quantity: a trial holds what was agreed; order it to have more".into();
            return Err(AppError::LicenceExceeded(text));
        }
        let change = LicenceChange { quantity, expires_on: None, auto_renew };
        self.change_licence(&allowed, id, Verb::SERVICE_ORDER, &change).await
    }

    /// Changes quantity and days of a licence.
    pub async fn set_licence(
        &self,
        caller: &Principal,
        id: ServiceId,
        change: &LicenceChange,
    ) -> Result<Service, AppError> {
        let allowed = self.allow(caller, Verb::LICENCE_MANAGE, Target::Service(id)).await?;
        self.change_licence(&allowed, id, Verb::LICENCE_MANAGE, change).await
    }

    async fn change_licence(
        &self,
        allowed: &Allowed,
        id: ServiceId,
        verb: Verb,
        change: &LicenceChange,
    ) -> Result<Service, AppError> {
        let _one_at_a_time = self.creation.lock().await;
        let (scope, actor, now_ns) = (&allowed.scope, &allowed.actor, self.clock.now_ns());
        let changed = self.control.change_licence(scope, actor, &id, verb.as_str(), change, now_ns).await;
        self.service_changed(changed.map_err(or_not_found)?).await
    }

    /// Who was given what of a service.
    pub async fn allocations(&self, caller: &Principal, service: ServiceId) -> Result<AllocationList, AppError> {
        let allowed = self.allow(caller, Verb::ALLOCATION_VIEW, Target::Service(service)).await?;
        // A user sees of it only what the user was given.
        let reach = self.reach(caller, Verb::ALLOCATION_VIEW).await?;
        let found = self.control.allocations_of(&allowed.scope, &reach.scope, &service).await;
        let (allocations, figures) = found.map_err(or_not_found)?;
        let tenant = self.control.service(&allowed.scope, &service).await.map_err(or_not_found)?.tenant;
        let customer = self.customer_name(&tenant).await?;
        let used = |user: &str| {
            customer.as_ref().map_or(0, |customer| {
                let name = UserName { customer: customer.clone(), user: user.to_owned() };
                self.store.quota(&limit_id(&QuotaScope::User(name))).used_physical
            })
        };
        let items = allocations.into_iter().map(|one| (one.clone(), used(&one.user_name))).collect();
        Ok(AllocationList { items, figures, used_bytes: self.used_by(&tenant).await? })
    }

    async fn customer_name(&self, tenant: &TenantId) -> Result<Option<String>, AppError> {
        let all = self.control.licence_quotas(tenant, None).await?;
        Ok(all.into_iter().find_map(|(scope, _)| match scope {
            QuotaScope::Customer(name) => Some(name),
            _ => None,
        }))
    }

    /// What a customer has stored, bytes.
    async fn used_by(&self, tenant: &TenantId) -> Result<u64, AppError> {
        let customer = self.customer_name(tenant).await?;
        let reading = |name| self.store.quota(&limit_id(&QuotaScope::Customer(name))).used_physical;
        Ok(customer.map_or(0, reading))
    }

    /// Gives a user a part of a service; the user's vault is made with its first one.
    pub async fn set_allocation(
        &self,
        caller: &Principal,
        service: ServiceId,
        user: UserId,
        share: &Share,
    ) -> Result<(Allocation, u64), AppError> {
        let allowed = self.allow(caller, Verb::ALLOCATION_SET, Target::Service(service)).await?;
        let made = self.give(&allowed, service, user, share).await?;
        let list = self.allocations_of(&allowed.scope, service, user).await?;
        Ok((made, list))
    }

    /// What a user has stored, bytes.
    async fn allocations_of(&self, scope: &Scope, service: ServiceId, user: UserId) -> Result<u64, AppError> {
        let tenant = self.control.service(scope, &service).await.map_err(or_not_found)?.tenant;
        let all = self.control.licence_quotas(&tenant, Some(&user)).await?;
        let name = all.into_iter().map(|(scope, _)| scope).find(|scope| matches!(scope, QuotaScope::User(_)));
        Ok(name.map_or(0, |scope| self.store.quota(&limit_id(&scope)).used_physical))
    }

    pub(crate) async fn give(
        &self,
        allowed: &Allowed,
        service: ServiceId,
        user: UserId,
        share: &Share,
    ) -> Result<Allocation, AppError> {
        let _one_at_a_time = self.creation.lock().await;
        let (scope, actor, now_ns) = (&allowed.scope, &allowed.actor, self.clock.now_ns());
        let tenant = self.control.service(scope, &service).await.map_err(or_not_found)?.tenant;
        // Asked first, so that no keys are made for nothing; asked again where it counts.
        let vault = match self.control.check_allocation(scope, &service, &user, share).await {
            Ok(true) => None,
            Ok(false) => Some(self.make_vault().await?),
            Err(error) => return Err(self.with_usage(error, &tenant).await?),
        };
        kill_point!(AllocationKeysMade);
        let new = NewAllocation { service: &service, user: &user, share, vault: vault.as_ref() };
        let made = self.control.set_allocation(scope, actor, &new, now_ns).await;
        let made = match made {
            Ok(made) => made,
            Err(error) => return Err(self.with_usage(error, &tenant).await?),
        };
        kill_point!(AllocationEntered);
        self.push_licence_quotas(&tenant, Some(&user)).await?;
        kill_point!(AllocationLimitsPushed);
        if let Some(vault) = vault {
            self.push_quota_chain(&vault).await?;
        }
        self.gates.forget();
        Ok(made)
    }

    /// A refusal with what is stored in it.
    async fn with_usage(&self, error: ControlError, tenant: &TenantId) -> Result<AppError, AppError> {
        Ok(match error {
            ControlError::AllocationExceedsFree(mut refusal) => {
                refusal.used_bytes = self.used_by(tenant).await?;
                AppError::AllocationExceedsFree(refusal)
            }
            other => or_not_found(other),
        })
    }

    /// Takes back what a user was given. What it stored stays.
    pub async fn remove_allocation(
        &self,
        caller: &Principal,
        service: ServiceId,
        user: UserId,
    ) -> Result<(), AppError> {
        let allowed = self.allow(caller, Verb::ALLOCATION_SET, Target::Service(service)).await?;
        let _one_at_a_time = self.creation.lock().await;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let tenant = self.control.service(scope, &service).await.map_err(or_not_found)?.tenant;
        let removed = self.control.remove_allocation(scope, actor, &service, &user, self.clock.now_ns()).await;
        removed.map_err(or_not_found)?;
        kill_point!(AllocationTakenBack);
        self.gates.forget();
        self.push_licence_quotas(&tenant, Some(&user)).await
    }

    /// The contacts of a service.
    pub async fn service_contacts(
        &self,
        caller: &Principal,
        service: ServiceId,
    ) -> Result<Vec<ServiceContact>, AppError> {
        let allowed = self.allow(caller, Verb::CONTACT_VIEW, Target::Service(service)).await?;
        self.control.service_contacts(&allowed.scope, &service).await.map_err(or_not_found)
    }

    /// Makes somebody a contact in another one's place.
    pub async fn set_service_contact(
        &self,
        caller: &Principal,
        service: ServiceId,
        kind: ContactKind,
        user: UserId,
    ) -> Result<Vec<ServiceContact>, AppError> {
        let allowed = self.allow(caller, Verb::CONTACT_SET, Target::Service(service)).await?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let set = self.control.set_service_contact(scope, actor, &service, kind, &user, self.clock.now_ns()).await;
        set.map_err(or_not_found)?;
        self.control.service_contacts(scope, &service).await.map_err(or_not_found)
    }
}
