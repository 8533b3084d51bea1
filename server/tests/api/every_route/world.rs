//! A platform with two partners, three customers and somebody of every role, on a running server.
//!
//! `north` looks after `acme` and `beta`, `south` after `coast`. In `acme` Anna's things count under service `first`,
//! Bert's under `second`; Cleo is in `beta`, Dora in `coast`. The customers `acme` and `coast` grant support access.

use super::oracle::{At, Held, Matrix, Reach};
use crate::harness::{Client, Server, Tree, VaultClient, ok};
use crate::identity::PASSWORD;
use api::accounts::NewToken;
use api::agents::Orders;
use api::computers::Enrolled;
use api::identity::{LoggedIn, NewApiToken};
use api::invitations::AcceptedInvitation;
use api::members::Members;
use control::{
    Actor, Control, Email, GroupId, GroupTerms, InvitationKind, MemberRole, NewInvitation, NewRevision, Scope,
    ScopePart, TenantId, UserId,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

pub const PLAN: &str = r#"{"source":{"kind":"folders","paths":["/etc"],"excludes":[],"one_file_system":false,"exclude_caches":true},"schedule":{"rule":{"every":"never"},"time_zone":"UTC","jitter_minutes":0,"catch_up":true}}"#;
/// For a user; of a service there are 100 GiB.
pub const SHARE_BYTES: i64 = 1 << 30;
/// The verb of the principal with an API token.
pub const TOKEN_VERB: &str = "tenant.view";

/// How somebody proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nobody,
    /// The operator on the server's own machine.
    Local,
    Person,
    /// A token of a person for [`TOKEN_VERB`].
    ApiToken,
    /// The agent of Anna's computer.
    Agent,
    /// Anna's vault, every right.
    VaultToken,
}

/// Somebody who asks.
pub struct Principal {
    pub name: &'static str,
    pub kind: Kind,
    pub held: Vec<Held>,
    /// As the oracle knows the person.
    pub user: Option<&'static str>,
    /// Without a fresh factor.
    pub plain: Client,
    /// With one.
    pub fresh: Client,
    /// Ids of what is the principal's own: `session`, `token`.
    pub own: BTreeMap<&'static str, String>,
}

/// Objects that stand at one place: ids by the names of path parameters.
#[derive(Clone, Debug)]
pub struct Things {
    pub name: &'static str,
    tenant: &'static str,
    user: Option<&'static str>,
    service: Option<&'static str>,
    pub support_access: bool,
    pub ids: BTreeMap<&'static str, String>,
}

impl Things {
    /// Where one of them stands.
    pub fn at(&self, kind: &str) -> At {
        let (user, services) = match kind {
            // A customer and what is the customer's own counts under all of its services.
            "tenant" | "invitation" => {
                (None, if self.tenant == "acme" { vec!["first", "second"] } else { self.service.into_iter().collect() })
            }
            "service" => (None, self.service.into_iter().collect()),
            "group" | "partner" => (None, Vec::new()),
            _ => (self.user, self.service.into_iter().collect()),
        };
        At { tenant: self.tenant, user, services, support_access: self.support_access }
    }

    /// The same names with ids that nothing has.
    pub fn absent(&self) -> Things {
        let mut absent = self.clone();
        absent.name = "absent";
        for (name, id) in &mut absent.ids {
            if !NOT_IDS.contains(name) {
                *id = "f".repeat(id.len());
            }
        }
        absent
    }

    /// With a text that is no id in one place.
    pub fn nonsense(&self, parameter: &str) -> Things {
        let mut nonsense = self.clone();
        nonsense.name = "nonsense";
        if let Some(id) = nonsense.ids.get_mut(parameter) {
            *id = "nonsense".into();
        }
        nonsense
    }
}

/// Names for people, and what only stands in bodies.
const NOT_IDS: &[&str] = &["customer_name", "user_name", "colleague", "contact", "root", "incarnation"];

pub struct World {
    pub server: Server,
    pub local: Client,
    pub control: Control,
    pub scope: Scope,
    pub actor: Actor,
    pub principals: Vec<Principal>,
    /// `anna`, `bert`, `cleo`, `dora`, `north`, `south`.
    pub things: Vec<Things>,
    pub vaults: BTreeMap<&'static str, VaultClient>,
    /// For names that are used once.
    count: std::cell::Cell<u64>,
}

pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

pub async fn send(client: &Client, method: Method, path: &str, body: &Value) -> reqwest::Response {
    client.request(method, &format!("/api/v1{path}")).json(body).send().await.unwrap()
}

async fn made(client: &Client, method: Method, path: &str, body: Value) -> Value {
    ok(send(client, method, path, &body).await).await
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

impl World {
    pub fn number(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    pub fn things(&self, name: &str) -> &Things {
        self.things.iter().find(|things| things.name == name).unwrap()
    }

    pub fn principal(&self, name: &str) -> &Principal {
        self.principals.iter().find(|principal| principal.name == name).unwrap()
    }

    fn tenant(&self, name: &str) -> TenantId {
        self.things.iter().find(|things| things.tenant == name).unwrap().ids["tenant"].parse().unwrap()
    }

    pub async fn build(matrix: &Matrix) -> World {
        Self::build_on(Server::start(), matrix).await
    }

    /// On a server that has just been started.
    pub async fn build_on(server: Server, matrix: &Matrix) -> World {
        let local = server.client(&server.run_file("local-token"));
        let control = Control::open(&server.data().join("accounts.sqlite")).await.unwrap();
        let authority = control.take_authority().unwrap();
        let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
        let actor = Actor { id: "test".into(), name: "test".into(), behalf: None, address: "local".into() };
        let mut world = World {
            server,
            local,
            control,
            scope,
            actor,
            principals: Vec::new(),
            things: Vec::new(),
            vaults: BTreeMap::new(),
            count: std::cell::Cell::new(0),
        };
        for name in ["north", "south"] {
            world.add_partner(name).await;
        }
        world.add_customer("acme", "north", &[("anna", "first"), ("bert", "second")]).await;
        world.add_customer("beta", "north", &[("cleo", "third")]).await;
        world.add_customer("coast", "south", &[("dora", "fourth")]).await;
        world.add_people(matrix).await;
        for things in ["anna", "bert", "cleo", "dora"] {
            world.fill(things).await;
        }
        world.add_credentials().await;
        world
    }

    async fn add_partner(&mut self, name: &'static str) {
        let body = json!({"kind": "partner", "title": name, "name": name});
        let tenant = id(&made(&self.local, Method::POST, "/tenants", body).await);
        let terms = GroupTerms { name: "desk".into(), verbs: Vec::new(), all_customers: false, customers: Vec::new() };
        let partner: TenantId = tenant.parse().unwrap();
        let group = self.control.create_group(&self.scope, &self.actor, &partner, &terms, now_ns()).await.unwrap();
        let ids = BTreeMap::from([("tenant", tenant), ("group", group.id.to_string())]);
        self.things.push(Things { name, tenant: name, user: None, service: None, support_access: false, ids });
    }

    /// A customer with services, and somebody with an allocation of each.
    async fn add_customer(&mut self, name: &'static str, partner: &str, users: &[(&'static str, &'static str)]) {
        let parent = self.tenant(partner).to_string();
        let body = json!({"kind": "customer", "title": name, "name": name, "parent": parent});
        let tenant = id(&made(&self.local, Method::POST, "/tenants", body).await);
        for &(user, service) in users {
            let path = format!("/tenants/{tenant}/services");
            let ordered = id(&made(&self.local, Method::POST, &path, json!({"quantity": 100})).await);
            let path = format!("/services/{ordered}/pay");
            let _ = made(&self.local, Method::POST, &path, json!({})).await;
            let ids = BTreeMap::from([
                ("tenant", tenant.clone()),
                ("service", ordered),
                ("customer_name", name.to_owned()),
                ("user_name", user.to_owned()),
            ]);
            let support_access = name != "beta";
            self.things.push(Things {
                name: user,
                tenant: name,
                user: Some(user),
                service: Some(service),
                support_access,
                ids,
            });
        }
    }

    /// A person who has accepted an invitation, and an allocation where it is said.
    async fn person(&self, tenant: TenantId, role: Option<MemberRole>, groups: Vec<GroupId>, name: &str) -> UserId {
        let email = Email::parse(&format!("{name}@people.example")).unwrap();
        let kind = InvitationKind::User { role, groups };
        let new = NewInvitation { tenant, kind, email, locale: "en".into(), inviter: None };
        let (_, secret) = self.control.create_invitation(&self.actor, &new, "x#", now_ns()).await.unwrap();
        let body = json!({"secret": secret.expose(), "name": name, "password": PASSWORD});
        let anyone = self.server.client("");
        let done: AcceptedInvitation = ok(anyone.post("/api/v1/invitations/accept", &body).await).await;
        done.user.parse().unwrap()
    }

    async fn log_in(&self, name: &str) -> (String, Client) {
        let body = json!({"login": format!("{name}@people.example"), "password": PASSWORD, "program": "test"});
        let done: LoggedIn = ok(self.server.client("").post("/api/v1/login", &body).await).await;
        (done.id, self.server.client(&done.secret.0))
    }

    async fn add_people(&mut self, matrix: &Matrix) {
        let [north, south, acme, coast] = ["north", "south", "acme", "coast"].map(|name| self.tenant(name));
        let customers = vec![acme, self.tenant("beta")];
        let mut groups = Vec::new();
        for (name, verbs) in [("everything", matrix.of_groups()), ("nothing", Vec::new())] {
            let terms = GroupTerms { name: name.into(), verbs, all_customers: false, customers: customers.clone() };
            let made = self.control.create_group(&self.scope, &self.actor, &north, &terms, now_ns()).await.unwrap();
            groups.push(made.id);
        }
        let admin = Some(MemberRole::Admin);
        let held = |role, reach| vec![Held { role, reach, gives: true }];
        let tenants = |role, names| held(role, Reach::Tenants(names));
        // Contacts belong to the customer, as users without anything of their own.
        let contact = |role, user| {
            let mut both = held(role, Reach::Service("first"));
            both.extend(held("BU", Reach::Own { user, tenant: "acme" }));
            both
        };
        let everything = &["platform", "north", "south", "acme", "beta", "coast"];
        let mut nothing = tenants("PG", &["acme", "beta"]);
        nothing[0].gives = false;
        let people = [
            ("OP", TenantId::PLATFORM, admin, vec![], tenants("OP", everything)),
            ("PA", north, admin, vec![], tenants("PA", &["north", "acme", "beta"])),
            ("PG", north, None, vec![groups[0]], tenants("PG", &["acme", "beta"])),
            ("PG without verbs", north, None, vec![groups[1]], nothing),
            ("CA", acme, admin, vec![], tenants("CA", &["acme"])),
            ("AC", acme, Some(MemberRole::User), vec![], contact("AC", "AC")),
            ("TC", acme, Some(MemberRole::User), vec![], contact("TC", "TC")),
            ("BC", acme, Some(MemberRole::User), vec![], contact("BC", "BC")),
            ("BU", acme, Some(MemberRole::User), vec![], held("BU", Reach::Own { user: "anna", tenant: "acme" })),
            ("RO", acme, Some(MemberRole::Auditor), vec![], tenants("RO", &["acme"])),
            ("foreign CA", coast, admin, vec![], tenants("CA", &["coast"])),
            ("foreign PA", south, admin, vec![], tenants("PA", &["south", "coast"])),
        ];
        for (name, tenant, role, groups, held) in people {
            let address = name.replace(' ', "-");
            let user = self.person(tenant, role, groups, &address).await;
            let (_, plain) = self.log_in(&address).await;
            let (session, fresh) = self.log_in(&address).await;
            let stepped = fresh.post("/api/v1/login/step-up", &json!({"password": PASSWORD})).await;
            assert!(stepped.status().is_success());
            let body = json!({"name": "t", "verbs": ["self.view"]});
            let token: NewApiToken = ok(fresh.post("/api/v1/api-tokens", &body).await).await;
            let own = BTreeMap::from([("session", session), ("token", token.token.id), ("user", user.to_string())]);
            let known_as = if name == "BU" { "anna" } else { name };
            self.principals.push(Principal { name, kind: Kind::Person, held, user: Some(known_as), plain, fresh, own });
        }
        for (contact, kind) in [("AC", "admin"), ("TC", "technical"), ("BC", "billing")] {
            let user = self.principal(contact).own["user"].parse().unwrap();
            let service = self.things("anna").ids["service"].parse().unwrap();
            let kind = kind.parse().unwrap();
            let set = self.control.set_service_contact(&self.scope, &self.actor, &service, kind, &user, now_ns());
            set.await.unwrap();
        }
        for (administrator, tenant) in [("CA", acme), ("foreign CA", coast)] {
            let path = format!("/tenants/{tenant}/support-access");
            let body = json!({"until_ns": now_ns() + 3_600_000_000_000});
            let _ = made(&self.principal(administrator).fresh, Method::PUT, &path, body).await;
        }
    }

    /// Everything that a user has.
    async fn fill(&mut self, name: &'static str) {
        let ids = self.things(name).ids.clone();
        let customer = &ids["customer_name"];
        let colleague = format!("colleague-{name}");
        for user in [name, colleague.as_str()] {
            // Anna is a person who logs in; the others are only there.
            if user != "anna" {
                let _ = made(&self.local, Method::POST, "/users", json!({"name": user, "customer": customer})).await;
            }
        }
        let members: Members =
            ok(self.local.get(&format!("/api/v1/tenants/{}/members?limit=200", ids["tenant"])).await).await;
        let user_named = |name: &str| members.items.iter().find(|member| member.name == name).unwrap().user.clone();
        let user = if name == "anna" { self.principal("BU").own["user"].clone() } else { user_named(name) };
        let colleague = user_named(&colleague);
        for user in [&user, &colleague] {
            let path = format!("/services/{}/allocations/{user}", ids["service"]);
            let _ = made(&self.local, Method::PUT, &path, json!({"bytes": SHARE_BYTES})).await;
        }
        let user_id: UserId = user.parse().unwrap();
        let vault = self.control.vault_of_user(&user_id).await.unwrap().unwrap().to_string();
        let body = json!({"name": "t", "vault": vault, "rights": ["backup", "restore", "delete", "purge", "hold"]});
        let token: NewToken = ok(self.local.post("/api/v1/tokens", &body).await).await;
        let client = VaultClient { client: self.server.client(&token.secret), vault: vault.clone() };
        let tree = Tree::build(&client.keys().await, 0);
        let snapshot = client.backup(&tree).await;
        let session = client.begin().await;
        let restore: Value =
            ok(client.client.post(&client.path("/restores"), &json!({"snapshot": snapshot.id})).await).await;
        self.vaults.insert(name, client);
        let invited = InvitationKind::User { role: Some(MemberRole::Auditor), groups: Vec::new() };
        let email = Email::parse(&format!("guest-of-{name}@people.example")).unwrap();
        let tenant = ids["tenant"].parse().unwrap();
        let new = NewInvitation { tenant, kind: invited, email, locale: "en".into(), inviter: None };
        let (invitation, _) = self.control.create_invitation(&self.actor, &new, "x#", now_ns()).await.unwrap();
        let body = json!({"new_email": format!("new-{name}@people.example"), "reason": "lost"});
        let recovery = id(&made(&self.local, Method::POST, &format!("/users/{user}/recovery"), body).await);
        let contact = match name {
            "anna" => self.principal("TC").own["user"].clone(),
            _ => colleague.clone(),
        };
        let user_name = match name {
            "anna" => {
                let all: Members =
                    ok(self.local.get(&format!("/api/v1/tenants/{}/members?limit=200", ids["tenant"])).await).await;
                all.items.into_iter().find(|member| member.user == user).unwrap().name
            }
            _ => name.to_owned(),
        };
        let more = BTreeMap::from([
            ("user", user.clone()),
            ("colleague", colleague),
            ("contact", contact),
            ("user_name", user_name),
            ("vault", vault),
            ("snapshot", snapshot.id),
            ("root", snapshot.root),
            ("upload", session.id),
            ("incarnation", session.incarnation.to_string()),
            ("restore", id(&restore)),
            ("invitation", invitation.id.to_string()),
            ("recovery", recovery),
        ]);
        self.things.iter_mut().find(|things| things.name == name).unwrap().ids.extend(more);
        let enrolled = self.computer(name).await;
        let plan = self.plan(&enrolled.computer.id).await;
        let plan_id = plan.parse().unwrap();
        let job = self.control.order_backup(&self.scope, &self.actor, &plan_id, now_ns()).await.unwrap();
        let webhook = self.webhook(&user).await;
        let (export, key) = self.export(&plan_id, &self.things(name).ids["vault"]).await;
        let more = [
            ("webhook", webhook),
            ("export", export),
            ("key", key),
            ("computer", enrolled.computer.id),
            ("plan", plan),
            ("job", job.id.to_string()),
            ("credential", enrolled.credential),
        ];
        let things = self.things.iter_mut().find(|things| things.name == name).unwrap();
        things.ids.extend(more);
    }

    /// Who is no person.
    async fn add_credentials(&mut self) {
        let anna = self.things("anna").clone();
        let agent = self.server.client(&anna.ids["credential"]);
        let orders: Orders = ok(agent.get("/api/v1/computer/orders").await).await;
        let order = orders.orders[0].id.clone();
        for things in &mut self.things {
            things.ids.remove("credential");
            things.ids.insert("order", order.clone());
        }
        let body = json!({"name": "t", "verbs": [TOKEN_VERB]});
        let token: NewApiToken = ok(self.principal("CA").fresh.post("/api/v1/api-tokens", &body).await).await;
        let token = self.server.client(&token.secret.0);
        let of_ca = self.principal("CA").held.clone();
        let operator = self.principal("OP").held.clone();
        let add = |name, kind, held: Vec<Held>, user, client: Client| Principal {
            name,
            kind,
            held,
            user,
            plain: client.clone(),
            fresh: client,
            own: BTreeMap::new(),
        };
        let vault = self.vaults["anna"].client.clone();
        let more = [
            add("token of CA", Kind::ApiToken, of_ca, Some("CA"), token),
            add("local", Kind::Local, operator, None, self.local.clone()),
            add("agent", Kind::Agent, Vec::new(), None, agent),
            add("vault token", Kind::VaultToken, Vec::new(), None, vault),
            add("nobody", Kind::Nobody, Vec::new(), None, self.server.client("")),
        ];
        self.principals.extend(more);
    }

    /// A further computer of a user.
    pub async fn computer(&self, things: &str) -> Enrolled {
        let user: UserId = self.things(things).ids["user"].parse().unwrap();
        let made = self.control.create_enrolment(&self.scope, &self.actor, &user, None, i64::MAX, now_ns()).await;
        let body = json!({"token": made.unwrap().secret.expose(), "name": format!("computer {}", self.number())});
        ok(self.server.client("").post("/api/v1/enrol", &body).await).await
    }

    /// A further plan of a computer.
    pub async fn plan(&self, computer: &str) -> String {
        let new = NewRevision { body: PLAN, due: None, retention: None };
        let name = format!("plan {}", self.number());
        let computer = computer.parse().unwrap();
        let made = self.control.create_plan(&self.scope, &self.actor, &computer, &name, &new, now_ns()).await;
        made.unwrap().id.to_string()
    }

    /// A ready export of what a plan makes, and a key of it.
    async fn export(&self, plan: &control::PlanId, vault: &str) -> (String, String) {
        let new = control::NewExport { plan: *plan, newest_will_do: false };
        let asked = self.control.request_export(&self.scope, &self.actor, &new, now_ns()).await.unwrap().id;
        self.control.release_export(&self.scope, &self.actor, &asked, now_ns()).await.unwrap();
        let (snapshot, vault) = ("0".repeat(32), vault.parse().unwrap());
        let content = control::ExportContent { vault, snapshot, dumped_ns: 1, files: Vec::new() };
        self.control.publish_export(&self.scope, &self.actor, &asked, &content, now_ns()).await.unwrap();
        let key = control::NewExportKey {
            fingerprint: "SHA256:x",
            public_key: "ssh-ed25519 x",
            is_own: true,
            networks: &[],
            expires_ns: None,
            terms_version: "1",
        };
        let key = self.control.add_export_key(&self.scope, &self.actor, &asked, &key, now_ns()).await.unwrap();
        (asked.to_string(), key.id.to_string())
    }

    /// A webhook of a user.
    async fn webhook(&self, user: &str) -> String {
        let body = json!({"user": user, "url": "https://webhook.invalid/", "events": ["quota"]});
        id(&made(&self.local, Method::POST, "/webhooks", body).await["webhook"])
    }

    /// The like of what a request is about to destroy.
    pub async fn spare(&self, things: &Things, parameter: &'static str) -> String {
        match parameter {
            "computer" => self.computer(things.name).await.computer.id,
            "plan" => self.plan(&things.ids["computer"]).await,
            "webhook" => self.webhook(&things.ids["user"]).await,
            "upload" => self.vaults[things.name].begin().await.id,
            "snapshot" => {
                let vault = &self.vaults[things.name];
                let session = vault.begin().await;
                let summary = api::upload::RunSummary::default();
                let commit = api::upload::Commit { root: things.ids["root"].clone(), summary };
                let path = vault.upload_path(&session, "/commit");
                let made: api::browse::Snapshot = ok(vault.client.post(&path, &commit).await).await;
                made.id
            }
            "group" => {
                let name = format!("group {}", self.number());
                let terms = GroupTerms { name, verbs: Vec::new(), all_customers: false, customers: Vec::new() };
                let tenant = things.ids["tenant"].parse().unwrap();
                let made = self.control.create_group(&self.scope, &self.actor, &tenant, &terms, now_ns()).await;
                made.unwrap().id.to_string()
            }
            "user" => things.ids["colleague"].clone(),
            other => panic!("no spare {other}"),
        }
    }
}
