//! Somebody with a mail address, made the way people come in: by an invitation.

use control::{
    Actor, Control, Email, InvitationKind, MemberRole, NewInvitation, NewTenant, Newcomer, Password, Scope, TenantId,
    TenantKind, UserId,
};
use repo_format::id::VaultId;
use zeroize::Zeroizing;

/// A backup user of a new customer, with a vault. What was written to the person is sent already.
pub async fn person(
    control: &Control,
    scope: &Scope,
    customer: &str,
    email: &str,
    vault: VaultId,
    now_ns: i64,
) -> (UserId, TenantId) {
    let actor =
        Actor { id: "local".into(), name: "operator on the server".into(), behalf: None, address: "local".into() };
    let new =
        NewTenant { parent: TenantId::PLATFORM, kind: TenantKind::Customer, name: Some(customer), title: customer };
    let tenant = control.create_tenant(scope, &actor, &new, now_ns).await.unwrap().id;
    let new = NewInvitation {
        tenant,
        kind: InvitationKind::User { role: Some(MemberRole::User), groups: Vec::new() },
        email: Email::parse(email).unwrap(),
        locale: "en".into(),
        inviter: None,
    };
    let link = "https://backup.example/invitation#";
    let (_, secret) = control.create_invitation(&actor, &new, link, now_ns).await.unwrap();
    let password = Password::chosen(Zeroizing::new("plum gravel otter 91".to_owned()), &[]).unwrap().hash().unwrap();
    let newcomer = Newcomer::New { title: "Anna", password: &password, time_zone: "UTC" };
    let digest = secret.digest();
    let come_in = control.accept_invitation(&digest, &newcomer, "192.0.2.1", link, now_ns + 1);
    let user = come_in.await.unwrap().user;
    assert!(control.enter_first_vault(&user, &vault, now_ns).await.unwrap());
    for mail in control.due_mails(i64::MAX, 10).await.unwrap() {
        control.mail_sent(&mail, now_ns + 1).await.unwrap();
    }
    (user, tenant)
}
