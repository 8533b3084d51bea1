//! SQL, store and files change one after the other: between any two of these steps the server is ended as by `kill -9`,
//! and started again. `accounts check` says what is half done, `--repair` puts it right, what was asked for can be asked
//! for again, and nothing of anybody else has changed.
//!
//! The points stand in the server's code (`server::kill_points`), and every one is gone through: a new one does not compile
//! here until it is said what leads to it. Needs programs built with the features `server/testing` and `agent/testing`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::transport::Method;
use control::TenantId;
use serde_json::{Value, json};
use server::kill_points::{KILL_FILE_VARIABLE, KillPoint};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::harness::{Binaries, Hand, Login, Server, administer};

const CLOCK_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";
const PASSWORD: &str = "correct horse battery staple";
const GIB: i64 = 1 << 30;
/// Past every time of grace, and past the end of a trial.
const LATER_SECONDS: i64 = 40 * 24 * 3600;
/// Longest wait for a process to end that is about to.
const PATIENCE: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;

/// What is asked for when the server ends. Each has a test of its own.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $test:ident: $scenario:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Scenario {
            $($(#[doc = $doc])* $scenario,)*
        }

        $(
            #[test]
            fn $test() {
                go_through(Scenario::$scenario);
            }
        )*
    };
}

scenarios! {
    /// The server starts over an empty folder.
    a_first_start: FirstStart,
    /// A user is made, with a vault.
    a_user_is_made: MakeUser,
    /// A user gets a further vault.
    a_vault_is_made: MakeVault,
    /// A user is given a part of a service, and a vault with it.
    a_part_is_given: Allocate,
    /// It is taken back.
    a_part_is_taken_back: TakeBack,
    /// What has no vault gets one by a repair.
    a_missing_vault_is_made: Repair,
    /// A quota is set.
    a_quota_is_set: SetQuota,
    /// A customer gets a partner.
    a_partner_is_set: SetPartner,
    /// A service becomes larger.
    a_service_changes: ChangeService,
    /// A trial ends by the clock.
    a_service_ends_by_the_clock: ServiceEnds,
    /// Somebody comes in by an invitation with a service.
    an_invitation_is_accepted: AcceptInvitation,
    /// A computer is enrolled.
    a_computer_is_enrolled: Enrol,
    /// A vault is deleted for good.
    a_vault_is_deleted: DeleteVault,
    /// A user is deleted for good.
    a_user_is_deleted: DeleteUser,
    /// A user's time of grace is over.
    a_user_is_destroyed: RemoveUser,
    /// A customer's time of grace is over.
    a_customer_is_destroyed: RemoveTenant,
    /// A service is terminated.
    a_service_is_terminated: TerminateService,
    /// The master key is changed.
    the_master_key_is_changed: RotateMasterKey,
}

/// What leads to a point.
fn scenarios_of(point: KillPoint) -> &'static [Scenario] {
    use KillPoint as P;
    use Scenario as S;
    const DELETIONS: &[Scenario] =
        &[S::DeleteVault, S::DeleteUser, S::RemoveUser, S::RemoveTenant, S::TerminateService];
    match point {
        P::MasterKeyMade | P::AccountsMade | P::StoreMade | P::SealingKeyMade | P::OperatorLinkMade => &[S::FirstStart],
        P::UserKeysMade | P::UserEntered => &[S::MakeUser],
        P::VaultKeysMade | P::VaultEntered => &[S::MakeVault],
        P::AllocationKeysMade | P::AllocationEntered | P::AllocationLimitsPushed => &[S::Allocate],
        P::AllocationTakenBack => &[S::TakeBack],
        P::FirstVaultKeysMade | P::FirstVaultEntered => &[S::Repair],
        P::QuotaWritten => &[S::SetQuota],
        P::PartnerWritten => &[S::SetPartner],
        P::ServiceWritten => &[S::ChangeService],
        P::ServicesAdvanced => &[S::ServiceEnds],
        P::InvitationAccepted => &[S::AcceptInvitation],
        P::ComputerEnrolled => &[S::Enrol],
        P::DeletionDecided | P::DeletionForgotten | P::DeletionCarriedOut => DELETIONS,
        P::UserVaultsDeleted | P::UserForgotten => &[S::DeleteUser],
        P::RemovalNoted => &[S::RemoveUser, S::RemoveTenant, S::TerminateService],
        P::UserVaultsDestroyed | P::UserErased => &[S::RemoveUser, S::RemoveTenant],
        P::TenantUsersErased | P::TenantErased => &[S::RemoveTenant],
        P::RotationKeyWaiting | P::RotationSecretsWrapped | P::RotationKeyringWrapped | P::RotationKeyReplaced => {
            &[S::RotateMasterKey]
        }
    }
}

/// Kinds of differences that the check names behind a kill there: those that it must, and those that it may, where the
/// server goes on by itself as soon as it runs again.
fn differences_of(point: KillPoint, scenario: Scenario) -> (&'static [&'static str], &'static [&'static str]) {
    use KillPoint as P;
    use Scenario as S;
    let is_removal = matches!(scenario, S::RemoveUser | S::RemoveTenant);
    match point {
        P::UserKeysMade | P::VaultKeysMade | P::AllocationKeysMade => (&["keys_without_vault"], &[]),
        P::FirstVaultKeysMade => (&["allocation_without_vault", "keys_without_vault"], &[]),
        P::RemovalNoted => (&["removal_due"], &[]),
        P::DeletionDecided | P::DeletionForgotten if is_removal => {
            (&["removal_due"], &["half_done_deletion", "open_receipt"])
        }
        P::DeletionDecided | P::DeletionForgotten => (&[], &["half_done_deletion", "open_receipt", "removal_due"]),
        P::DeletionCarriedOut if is_removal => (&["open_receipt", "removal_due"], &[]),
        P::DeletionCarriedOut if scenario == S::TerminateService => (&["open_receipt"], &[]),
        P::UserVaultsDestroyed | P::TenantUsersErased => (&["removal_due"], &[]),
        // What the clock does to services comes first, whatever else is due.
        P::ServicesAdvanced => (&["removal_due"], &[]),
        // Another user of the same customer, and the customer, are still to go.
        P::UserErased if scenario == S::RemoveTenant => (&["removal_due"], &[]),
        _ => (&[], &[]),
    }
}

#[test]
fn every_point_is_led_to() {
    for point in KillPoint::ALL {
        assert!(!scenarios_of(*point).is_empty(), "nothing leads to {point:?}");
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// Ids and secrets that the steps of a scenario need.
#[derive(Clone, Debug, Default)]
struct Known {
    customer: String,
    customer_name: String,
    service: String,
    /// Who is given something.
    anna: String,
    /// Secret of what is used once.
    once: String,
}

/// A data folder with a customer that has bought something, and with somebody to whom nothing may happen.
struct Bed {
    binaries: Binaries,
    folder: tempfile::TempDir,
    server: Option<Server>,
    known: Known,
    bystander: Option<Login>,
}

impl Bed {
    fn empty() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("clock"), "0").unwrap();
        Bed {
            binaries: Binaries::of_this_build().unwrap(),
            folder,
            server: None,
            known: Known::default(),
            bystander: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn try_start(&mut self) -> std::io::Result<()> {
        let (clock, kill) = (self.path("clock"), self.path("kill"));
        let variables: [(&str, &OsStr); 2] =
            [(CLOCK_VARIABLE, clock.as_os_str()), (KILL_FILE_VARIABLE, kill.as_os_str())];
        let listen = ([127, 0, 0, 1], 0).into();
        self.server = Some(Server::start_with(&self.binaries, &self.path("data"), listen, &[], &variables)?);
        Ok(())
    }

    fn start(&mut self) {
        self.try_start().unwrap();
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn local(&self) -> Hand {
        self.server().local().unwrap()
    }

    fn nobody(&self) -> Hand {
        Hand::new(&self.server().url(), &self.server().fingerprint().unwrap(), None).unwrap()
    }

    /// As the operator on the machine.
    fn done(&self, method: Method, path: &str, body: &Value) -> Value {
        self.local().done(method, path, body).unwrap()
    }

    fn arm(&self, point: KillPoint) {
        fs::write(self.path("kill"), point.name()).unwrap();
    }

    fn disarm(&self) {
        fs::remove_file(self.path("kill")).unwrap();
    }

    /// The clock goes on, the server is started again, and somebody says that the clock is right.
    fn later(&mut self) {
        self.stop();
        fs::write(self.path("clock"), LATER_SECONDS.to_string()).unwrap();
        self.start();
        self.done(Method::Post, "/clock/confirm", &json!({}));
    }

    /// A link to an invitation into a tenant.
    fn invite(&self, tenant: &str, body: &Value) -> String {
        let sent = self.done(Method::Post, &format!("/tenants/{tenant}/invitations"), body);
        text(&sent, "link").split_once('#').unwrap().1.to_owned()
    }

    fn accept(&self, secret: &str, name: &str) -> Value {
        let accept = json!({ "secret": secret, "name": name, "password": PASSWORD });
        self.nobody().done(Method::Post, "/invitations/accept", &accept).unwrap()
    }

    fn invite_customer(&self, email: &str, title: &str, product: &str, licence: &str) -> String {
        let service = json!({ "product": product, "licence": licence, "quantity": 50 });
        let invite = json!({ "kind": "customer", "email": email, "title": title, "service": service });
        self.invite(&TenantId::PLATFORM.to_string(), &invite)
    }

    /// A customer with a service of 50 GiB and a user who was given nothing; somebody else with files in a vault, and
    /// somebody else's customer.
    fn build(scenario: Scenario) -> Bed {
        let mut bed = Bed::empty();
        if scenario == Scenario::FirstStart {
            return bed;
        }
        bed.start();
        let eve = bed.server().add_user(&bed.binaries, "eve").unwrap();
        let login = Login::create(&bed.binaries, &eve, &bed.path("eve")).unwrap();
        fs::create_dir(bed.path("files")).unwrap();
        fs::write(bed.path("files/note"), "nothing happens to this").unwrap();
        let backed_up = login.run(["backup".as_ref(), bed.path("files").as_os_str()]).unwrap();
        assert_eq!(backed_up.code, Some(0), "{}", backed_up.stderr);
        bed.bystander = Some(login);
        bed.done(Method::Post, "/users", &json!({ "name": "mia" , "customer": "makers" }));
        let product = text(&bed.done(Method::Post, "/products", &json!({ "name": "Backup", "unit": "gib" })), "id");
        let acme = bed.accept(&bed.invite_customer("carla@acme.example", "Acme", &product, "trial"), "carla");
        let beta = bed.accept(&bed.invite_customer("bea@beta.example", "Beta", &product, "paid"), "bea");
        let services = bed.done(Method::Get, &format!("/services?tenant={}", text(&beta, "tenant")), &Value::Null);
        bed.done(Method::Post, &format!("/services/{}/pay", text(&services["items"][0], "id")), &json!({}));
        let customer = text(&acme, "tenant");
        let anna = json!({ "kind": "user", "email": "anna@acme.example", "role": "user" });
        let anna = text(&bed.accept(&bed.invite(&customer, &anna), "anna"), "user");
        let services = bed.done(Method::Get, &format!("/services?tenant={customer}"), &Value::Null);
        let name = text(&bed.done(Method::Get, &format!("/tenants/{customer}"), &Value::Null), "name");
        bed.known = Known {
            service: text(&services["items"][0], "id"),
            customer,
            customer_name: name,
            anna,
            once: String::new(),
        };
        bed.prepare(scenario, &product);
        bed.stop();
        bed
    }

    /// The same again, in a folder of its own.
    fn copied(&self) -> Bed {
        let mut bed = Bed::empty();
        bed.known = self.known.clone();
        copy(self.folder.path(), bed.folder.path());
        if self.bystander.is_some() {
            bed.bystander = Some(Login::without_login(&bed.binaries, &bed.path("eve")));
        }
        bed
    }

    fn allocation(&self) -> String {
        format!("/services/{}/allocations/{}", self.known.service, self.known.anna)
    }

    fn allocate(&self) {
        self.done(Method::Put, &self.allocation(), &json!({ "bytes": 20 * GIB }));
    }

    /// Ids of the vaults of somebody, by name of customer and user.
    fn vaults_of(&self, customer: &str, user: Option<&str>) -> Vec<String> {
        let all = self.done(Method::Get, "/vaults", &Value::Null);
        let all = all["vaults"].as_array().unwrap_or_else(|| panic!("{all}"));
        let owned = |vault: &&Value| {
            let owner = text(vault, "user");
            let (of, name) = owner.split_once('/').unwrap();
            of == customer && user.is_none_or(|user| user == name)
        };
        all.iter().filter(owned).map(|vault| text(vault, "id")).collect()
    }

    /// What was there before the moment at which the server ends.
    fn prepare(&mut self, scenario: Scenario, product: &str) {
        let Known { customer, anna, service, .. } = self.known.clone();
        match scenario {
            Scenario::FirstStart
            | Scenario::MakeUser
            | Scenario::MakeVault
            | Scenario::Allocate
            | Scenario::SetQuota
            | Scenario::ChangeService
            | Scenario::DeleteVault
            | Scenario::DeleteUser
            | Scenario::RotateMasterKey => {}
            Scenario::TakeBack => self.allocate(),
            Scenario::Repair => {
                self.allocate();
                self.delete_vault(&self.vaults_of(&self.known.customer_name, None)[0]).unwrap();
            }
            Scenario::SetPartner => {
                let platform = TenantId::PLATFORM.to_string();
                let partner = json!({ "kind": "partner", "title": "North", "name": "north", "parent": platform });
                self.done(Method::Post, "/tenants", &partner);
            }
            Scenario::AcceptInvitation => {
                self.known.once = self.invite_customer("dora@delta.example", "Delta", product, "trial");
            }
            Scenario::Enrol => {
                self.allocate();
                let made = self.carla().done(Method::Post, &format!("/users/{anna}/enrolments"), &json!({})).unwrap();
                self.known.once = text(&made, "token");
            }
            Scenario::ServiceEnds | Scenario::RemoveUser => {
                self.allocate();
                self.done(Method::Post, &format!("/users/{anna}/disable"), &json!({}));
                self.done(Method::Delete, &format!("/users/{anna}"), &json!({}));
                self.later();
            }
            Scenario::RemoveTenant => {
                self.allocate();
                self.done(Method::Post, &format!("/tenants/{customer}/disconnect"), &json!({}));
                self.done(Method::Delete, &format!("/tenants/{customer}"), &json!({}));
                self.later();
            }
            Scenario::TerminateService => {
                self.allocate();
                for step in ["order", "restrict", "suspend", "terminate"] {
                    self.done(Method::Post, &format!("/services/{service}/{step}"), &json!({ "quantity": 50 }));
                }
            }
        }
    }

    /// The customer's owner, logged in.
    fn carla(&self) -> Hand {
        let login = json!({ "login": "carla@acme.example", "password": PASSWORD });
        let session = self.nobody().done(Method::Post, "/login", &login).unwrap();
        let (url, fingerprint) = (self.server().url(), self.server().fingerprint().unwrap());
        Hand::new(&url, &fingerprint, Some(&text(&session, "secret"))).unwrap()
    }

    fn delete_vault(&self, vault: &str) -> std::io::Result<(u16, Value)> {
        let found = self.done(Method::Get, "/vaults", &Value::Null);
        let found = found["vaults"].as_array().unwrap().iter().find(|one| text(one, "id") == vault).cloned();
        let name = found.map_or(vault.to_owned(), |found| format!("{}/{}", text(&found, "user"), text(&found, "name")));
        self.local().ask(Method::Delete, &format!("/vaults/{vault}?confirm={name}"), &Value::Null)
    }

    /// Asks for it; an error when no answer comes.
    fn drive(&mut self, scenario: Scenario) -> std::io::Result<(u16, Value)> {
        let nothing = json!({});
        let Known { service, once, customer_name, .. } = &self.known;
        match scenario {
            Scenario::FirstStart => self.try_start().map(|()| (200, Value::Null)),
            Scenario::RotateMasterKey => self.rotate().map(|()| (200, Value::Null)),
            Scenario::MakeUser => {
                self.local().ask(Method::Post, "/users", &json!({ "name": "bob", "customer": "makers" }))
            }
            Scenario::MakeVault => {
                self.local().ask(Method::Post, "/vaults", &json!({ "name": "second", "user": "makers/mia" }))
            }
            Scenario::Allocate => self.local().ask(Method::Put, &self.allocation(), &json!({ "bytes": 20 * GIB })),
            Scenario::TakeBack => self.local().ask(Method::Delete, &self.allocation(), &nothing),
            Scenario::SetQuota => {
                let quota = json!({ "physical_hard_bytes": GIB, "logical_soft_bytes": 2 * GIB });
                self.local().ask(Method::Put, "/quotas/user:makers%2Fmia", &quota)
            }
            Scenario::SetPartner => {
                let path = format!("/customers/{customer_name}/partner");
                self.local().ask(Method::Put, &path, &json!({ "partner": "north" }))
            }
            Scenario::ChangeService => {
                self.local().ask(Method::Put, &format!("/services/{service}/licence"), &json!({ "quantity": 60 }))
            }
            Scenario::AcceptInvitation => {
                let accept = json!({ "secret": once, "name": "dora", "password": PASSWORD });
                self.nobody().ask(Method::Post, "/invitations/accept", &accept)
            }
            Scenario::Enrol => self.nobody().ask(Method::Post, "/enrol", &json!({ "token": once, "name": "pc" })),
            Scenario::DeleteVault => match self.vaults_of("makers", Some("mia")).first() {
                Some(vault) => self.delete_vault(vault),
                None => Ok((404, Value::Null)),
            },
            Scenario::DeleteUser => {
                self.local().ask(Method::Delete, "/users/makers/mia?confirm=makers/mia", &Value::Null)
            }
            // What is due is done once a minute, and by a repair.
            Scenario::Repair
            | Scenario::ServiceEnds
            | Scenario::RemoveUser
            | Scenario::RemoveTenant
            | Scenario::TerminateService => self.local().ask(Method::Post, "/accounts/repair", &nothing),
        }
    }

    /// `holdfastd master-key rotate` beside a stopped server.
    fn rotate(&self) -> std::io::Result<()> {
        let mut command = Command::new(&self.binaries.server);
        command.args(["master-key", "rotate", "--data"]).arg(self.path("data"));
        command.env(KILL_FILE_VARIABLE, self.path("kill")).stdin(Stdio::null());
        let output = command.output()?;
        match output.status.signal() {
            None if output.status.success() => Ok(()),
            Some(SIGKILL) => Err(std::io::Error::other("killed")),
            _ => panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// What must hold when it was asked for, ended in the midst, repaired, and asked for again.
    fn is_as_asked_for(&self, scenario: Scenario) {
        let Known { customer, customer_name, service, anna, .. } = &self.known;
        let own = || self.vaults_of(customer_name, None);
        let hard = |limit: &str| {
            let path = format!("/quotas/{}", limit.replace('/', "%2F"));
            self.done(Method::Get, &path, &Value::Null)["limits"]["physical_hard_bytes"].as_i64()
        };
        let gone = |path: &str| assert_eq!(self.local().ask(Method::Get, path, &Value::Null).unwrap().0, 404, "{path}");
        match scenario {
            Scenario::FirstStart => {
                self.server().add_user(&self.binaries, "first").unwrap();
            }
            Scenario::MakeUser => assert_eq!(self.vaults_of("makers", Some("bob")).len(), 1),
            Scenario::MakeVault => assert_eq!(self.vaults_of("makers", Some("mia")).len(), 2),
            Scenario::Allocate | Scenario::Repair => {
                assert_eq!(own().len(), 1);
                let user = self.done(Method::Get, &format!("/services/{service}/allocations"), &Value::Null);
                assert_eq!(user["items"][0]["bytes"].as_i64(), Some(20 * GIB), "{user}");
                let name = text(&user["items"][0], "user_name");
                assert_eq!(hard(&format!("user:{customer_name}/{name}")), Some(20 * GIB));
            }
            Scenario::TakeBack => {
                let left = self.done(Method::Get, &format!("/services/{service}/allocations"), &Value::Null);
                assert_eq!(left["items"].as_array().map(Vec::len), Some(0), "{left}");
                assert_eq!(own().len(), 1, "what was stored stays");
            }
            Scenario::SetQuota => assert_eq!(hard("user:makers/mia"), Some(GIB)),
            Scenario::SetPartner => {
                let tenant = self.done(Method::Get, &format!("/tenants/{customer}"), &Value::Null);
                assert_ne!(text(&tenant, "parent"), TenantId::PLATFORM.to_string(), "{tenant}");
            }
            Scenario::ChangeService => assert_eq!(hard(&format!("customer:{customer_name}")), Some(60 * GIB)),
            Scenario::ServiceEnds => {
                let ended = self.done(Method::Get, &format!("/services/{service}"), &Value::Null);
                assert_eq!(ended["state"], "expired", "{ended}");
            }
            Scenario::AcceptInvitation => {
                let login = json!({ "login": "dora@delta.example", "password": PASSWORD });
                self.nobody().done(Method::Post, "/login", &login).unwrap();
            }
            Scenario::Enrol => {
                // The credential was lost with the answer: the owner lets another enrolment take its place.
                let computers = self.done(Method::Get, &format!("/computers?user={anna}"), &Value::Null);
                assert_eq!(computers["items"].as_array().map(Vec::len), Some(1), "{computers}");
                let lost = text(&computers["items"][0], "id");
                let carla = self.carla();
                carla.done(Method::Post, "/login/step-up", &json!({ "password": PASSWORD })).unwrap();
                let path = format!("/users/{anna}/enrolments");
                let again = carla.done(Method::Post, &path, &json!({ "replaces": lost })).unwrap();
                let enrol = json!({ "token": text(&again, "token"), "name": "pc", "replaces": lost });
                let enrolled = self.nobody().done(Method::Post, "/enrol", &enrol).unwrap();
                assert_eq!(text(&enrolled["computer"], "id"), lost);
            }
            Scenario::DeleteVault => assert_eq!(self.vaults_of("makers", Some("mia")), [""; 0]),
            Scenario::DeleteUser => {
                assert_eq!(self.vaults_of("makers", None), [""; 0]);
                let users = self.done(Method::Get, "/users", &Value::Null);
                assert!(!users.to_string().contains("\"mia\""), "{users}");
            }
            Scenario::RemoveUser | Scenario::RemoveTenant | Scenario::TerminateService => {
                assert_eq!(own(), [""; 0]);
                let receipts = self.done(Method::Get, "/removal-receipts", &Value::Null);
                let receipts = receipts["items"].as_array().unwrap();
                assert_eq!(receipts.len(), 1, "one proof for one vault: {receipts:?}");
                assert!(receipts[0]["finished_ns"].is_i64(), "{receipts:?}");
                if scenario == Scenario::RemoveTenant {
                    gone(&format!("/tenants/{customer}"));
                }
                if scenario == Scenario::RemoveUser {
                    let members = self.done(Method::Get, &format!("/tenants/{customer}/members"), &Value::Null);
                    assert!(!members.to_string().contains(anna.as_str()), "{members}");
                }
            }
            Scenario::RotateMasterKey => {}
        }
    }

    /// What the check finds, by kind.
    fn check(&self) -> Vec<Value> {
        let checked = self.done(Method::Get, "/accounts/check", &Value::Null);
        checked["items"].as_array().unwrap().clone()
    }

    /// Everything that the accounts know of those to whom nothing may happen, and what they have stored.
    fn others(&self) -> Vec<Value> {
        let Some(login) = &self.bystander else { return Vec::new() };
        let tenants = self.done(Method::Get, "/tenants?kind=customer&limit=200", &Value::Null);
        let mut all = Vec::new();
        for tenant in tenants["items"].as_array().unwrap() {
            if !matches!(tenant["title"].as_str(), Some("default" | "Beta")) {
                continue;
            }
            let mut export = self.done(Method::Get, &format!("/tenants/{}/export", text(tenant, "id")), &Value::Null);
            let export = export.as_object_mut().unwrap();
            // Each export is noted there.
            export.remove("audit_log");
            // The agent asks for what it has stored.
            for token in export.get_mut("tokens").unwrap().as_array_mut().unwrap() {
                token.as_object_mut().unwrap().remove("used_ns");
            }
            all.push(Value::Object(export.clone()));
        }
        assert_eq!(all.len(), 2, "{tenants}");
        let url = format!("https://{}", self.server().address());
        let config = self.path("eve").join("config");
        point_at(&config, &url);
        for words in [&["check", "--read-data"][..], &["snapshots", "--json"]] {
            let outcome = login.run(words).unwrap();
            assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.stderr);
            if words[0] == "snapshots" {
                all.push(outcome.text().into());
            }
        }
        all
    }
}

/// The agent of a copied folder finds the server at its new address.
fn point_at(config: &Path, url: &str) {
    let path = config.join("login.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = |line: &str| if line.starts_with("url ") { format!("url = \"{url}\"\n") } else { format!("{line}\n") };
    fs::write(path, text.lines().map(line).collect::<String>()).unwrap();
}

/// Everything but what a server makes anew by itself, and is large.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
            copy(&entry.path(), &target);
        } else if !name.to_string_lossy().starts_with("ballast") && name != "data.log" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where two documents differ, and how.
fn changes(path: &str, old: &Value, new: &Value) -> Vec<String> {
    let nothing = Value::Null;
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let of = |all: &serde_json::Map<String, Value>, name: &String| all.get(name).unwrap_or(&nothing).clone();
            names.iter().flat_map(|name| changes(&format!("{path}/{name}"), &of(old, name), &of(new, name))).collect()
        }
        (Value::Array(old), Value::Array(new)) => {
            let of = |all: &[Value], place: usize| all.get(place).unwrap_or(&nothing).clone();
            let places = 0..old.len().max(new.len());
            places.flat_map(|place| changes(&format!("{path}/{place}"), &of(old, place), &of(new, place))).collect()
        }
        _ if old == new => Vec::new(),
        _ => vec![format!("{path}: {old} was, {new} is")],
    }
}

fn kinds(differences: &[Value]) -> BTreeSet<String> {
    differences.iter().map(|difference| text(difference, "kind")).collect()
}

fn go_through(scenario: Scenario) {
    let points = KillPoint::ALL.iter().filter(|point| scenarios_of(**point).contains(&scenario));
    let world = Bed::build(scenario);
    let mut gone_through = 0;
    for point in points {
        let began = Instant::now();
        let mut bed = world.copied();
        kill_at(&mut bed, scenario, *point);
        eprintln!("{scenario:?} ended at {point:?}: {:?}", began.elapsed());
        gone_through += 1;
    }
    assert!(gone_through > 0, "{scenario:?} leads to no point");
}

fn kill_at(bed: &mut Bed, scenario: Scenario, point: KillPoint) {
    let is_offline = matches!(scenario, Scenario::FirstStart | Scenario::RotateMasterKey);
    if scenario != Scenario::FirstStart {
        bed.start();
    }
    let others = if scenario == Scenario::FirstStart { Vec::new() } else { bed.others() };
    if scenario == Scenario::RotateMasterKey {
        bed.stop();
    }
    bed.arm(point);
    let answer = bed.drive(scenario);
    assert!(answer.is_err(), "{scenario:?} does not lead to {point:?}: {answer:?}");
    if !is_offline {
        let mut ended = bed.server.take().unwrap();
        let status = ended.ended_within(PATIENCE).unwrap();
        assert_eq!(status.and_then(|status| status.signal()), Some(SIGKILL), "{scenario:?} at {point:?}");
    }
    bed.disarm();

    bed.start();
    let (must, may) = differences_of(point, scenario);
    let found = bed.check();
    let named = kinds(&found);
    for kind in must {
        assert!(named.contains(*kind), "{scenario:?} at {point:?}: the check does not name {kind}: {found:?}");
    }
    let expected = |kind: &String| must.contains(&kind.as_str()) || may.contains(&kind.as_str());
    assert!(named.iter().all(expected), "{scenario:?} at {point:?}: {found:?}");
    let repaired = bed.done(Method::Post, "/accounts/repair", &json!({}));
    let repaired = repaired["items"].as_array().unwrap();
    assert!(repaired.iter().all(|one| one["repaired"] == true), "{scenario:?} at {point:?}: {repaired:?}");
    assert_eq!(bed.check(), [Value::Null; 0], "{scenario:?} at {point:?} behind a repair");

    if scenario == Scenario::RotateMasterKey || scenario == Scenario::FirstStart {
        bed.stop();
    }
    let (status, answer) = bed.drive(scenario).unwrap();
    let as_if_done = match scenario {
        Scenario::MakeUser | Scenario::MakeVault => status == 409,
        Scenario::TakeBack
        | Scenario::AcceptInvitation
        | Scenario::Enrol
        | Scenario::DeleteVault
        | Scenario::DeleteUser => status == 404,
        _ => false,
    };
    assert!((200..300).contains(&status) || as_if_done, "{scenario:?} at {point:?}, again: {status} {answer}");
    if scenario == Scenario::RotateMasterKey {
        bed.start();
    }
    bed.is_as_asked_for(scenario);
    assert_eq!(bed.check(), [Value::Null; 0], "{scenario:?} at {point:?} at the end");
    if scenario != Scenario::FirstStart {
        let changed: Vec<String> =
            others.iter().zip(&bed.others()).flat_map(|(old, new)| changes("", old, new)).collect();
        assert!(changed.is_empty(), "{scenario:?} at {point:?} changed something of somebody else: {changed:#?}");
    }
    let log = bed.server().log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert!(errors.is_empty(), "{scenario:?} at {point:?}: {errors:?}");
    let checked = administer(&bed.binaries, &bed.path("data"), &["accounts", "check"]).unwrap();
    assert_eq!(checked.trim(), "Accounts and store agree.");
}
