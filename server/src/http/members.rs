//! Members, owners and groups: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page::{Page, id, named_id, next};
use crate::http::problem::Refusal;
use crate::http::services::given;
use api::members::{
    BackUpMine, Group, GroupTerms, Groups, Member, MemberRole, Members, OfferOwner, OwnerOffer, SetRoles,
};
use api::services::Allocation;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::Share;

type Answer<T> = Result<Json<T>, Refusal>;

const fn role(role: control::MemberRole) -> MemberRole {
    match role {
        control::MemberRole::Admin => MemberRole::Admin,
        control::MemberRole::User => MemberRole::User,
        control::MemberRole::Auditor => MemberRole::Auditor,
    }
}

const fn role_of(role: MemberRole) -> control::MemberRole {
    match role {
        MemberRole::Admin => control::MemberRole::Admin,
        MemberRole::User => control::MemberRole::User,
        MemberRole::Auditor => control::MemberRole::Auditor,
    }
}

pub(crate) fn member(of: control::Member) -> Member {
    Member {
        user: of.user.to_string(),
        home: of.home.to_string(),
        name: of.name,
        title: of.title,
        email: of.email,
        state: of.state,
        delete_after_ns: of.delete_after_ns,
        roles: of.roles.into_iter().map(role).collect(),
        owner: of.owner,
        last_login_ns: of.last_login_ns,
        created_ns: of.created_ns,
    }
}

fn terms(body: GroupTerms) -> Result<control::GroupTerms, Refusal> {
    let GroupTerms { name, verbs, all_customers, customers } = body;
    let customers = customers.iter().map(|customer| named_id(customer, "customers")).collect::<Result<_, _>>()?;
    Ok(control::GroupTerms { name, verbs, all_customers, customers })
}

fn group(of: control::Group) -> Group {
    let control::GroupTerms { name, verbs, all_customers, customers } = of.terms;
    Group {
        id: of.id.to_string(),
        tenant: of.tenant.to_string(),
        terms: GroupTerms {
            name,
            verbs,
            all_customers,
            customers: customers.iter().map(ToString::to_string).collect(),
        },
        members: of.members.iter().map(ToString::to_string).collect(),
        created_ns: of.created_ns,
    }
}

/// Members of a tenant that the caller sees, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/members", tag = "members",
    params(("tenant" = String, Path, description = "Tenant id"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent", minimum = 1, maximum = 200),
        ("after" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = Members)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    Query(page): Query<Page>,
) -> Answer<Members> {
    let (limit, after) = (page.limit()?, page.after::<(String, String)>()?);
    let after = match &after {
        Some((name, user)) => Some((name.as_str(), named_id(user, "after")?)),
        None => None,
    };
    let members = state.app.members(&caller, id(&tenant, "tenant")?, after, limit).await?;
    let next = next(&members, limit, |member| (member.name.clone(), member.user.to_string()));
    Ok(Json(Members { items: members.into_iter().map(member).collect(), next }))
}

/// Sets the roles of a member as a whole.
#[utoipa::path(put, path = "/tenants/{tenant}/members/{user}", tag = "members", request_body = SetRoles,
    params(("tenant" = String, Path, description = "Tenant id"), ("user" = String, Path, description = "User id")),
    responses((status = 200, body = Member)))]
pub(crate) async fn set_roles(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((tenant, user)): Path<(String, String)>,
    JsonBody(body): JsonBody<SetRoles>,
) -> Answer<Member> {
    let roles: Vec<control::MemberRole> = body.roles.into_iter().map(role_of).collect();
    let set = state.app.set_roles(&caller, id(&tenant, "tenant")?, id(&user, "user")?, &roles).await?;
    Ok(Json(member(set)))
}

/// Takes a member out of a tenant where the person is not at home.
#[utoipa::path(delete, path = "/tenants/{tenant}/members/{user}", tag = "members",
    params(("tenant" = String, Path, description = "Tenant id"), ("user" = String, Path, description = "User id")),
    responses((status = 204, description = "Taken out")))]
pub(crate) async fn remove(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((tenant, user)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    state.app.remove_member(&caller, id(&tenant, "tenant")?, id(&user, "user")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Offers a tenant to one of its administrators, who becomes the owner by accepting.
#[utoipa::path(post, path = "/tenants/{tenant}/owner", tag = "members", request_body = OfferOwner,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = OwnerOffer)))]
pub(crate) async fn offer_owner(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<OfferOwner>,
) -> Answer<OwnerOffer> {
    let user = named_id(&body.user, "user")?;
    Ok(Json(OwnerOffer { expires_ns: state.app.offer_owner(&caller, id(&tenant, "tenant")?, user).await? }))
}

/// The caller takes a tenant that was offered.
#[utoipa::path(post, path = "/tenants/{tenant}/owner/accept", tag = "members",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Member)))]
pub(crate) async fn accept_owner(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
) -> Answer<Member> {
    Ok(Json(member(state.app.accept_owner(&caller, id(&tenant, "offer")?).await?)))
}

/// "I will back up my own computers": the caller gets the role of a user and a part of a service.
#[utoipa::path(post, path = "/tenants/{tenant}/back-up-mine", tag = "members", request_body = BackUpMine,
    params(("tenant" = String, Path, description = "Id of a customer")), responses((status = 200, body = Allocation)))]
pub(crate) async fn back_up_mine(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<BackUpMine>,
) -> Answer<Allocation> {
    let share = Share { bytes: body.bytes, computers: body.computers };
    let service = named_id(&body.service, "service")?;
    let made = state.app.back_up_mine(&caller, id(&tenant, "tenant")?, service, &share).await?;
    Ok(Json(given((made, 0))))
}

/// The groups of a partner.
#[utoipa::path(get, path = "/tenants/{tenant}/groups", tag = "members",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Groups)))]
pub(crate) async fn groups(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
) -> Answer<Groups> {
    let groups = state.app.groups(&caller, id(&tenant, "tenant")?).await?;
    Ok(Json(Groups { items: groups.into_iter().map(group).collect() }))
}

/// Makes a group that gives no more than the caller holds.
#[utoipa::path(post, path = "/tenants/{tenant}/groups", tag = "members", request_body = GroupTerms,
    params(("tenant" = String, Path, description = "Id of a partner")), responses((status = 201, body = Group)))]
pub(crate) async fn create_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<GroupTerms>,
) -> Result<(StatusCode, Json<Group>), Refusal> {
    let made = state.app.create_group(&caller, id(&tenant, "tenant")?, &terms(body)?).await?;
    Ok((StatusCode::CREATED, Json(group(made))))
}

/// One group.
#[utoipa::path(get, path = "/groups/{group}", tag = "members",
    params(("group" = String, Path, description = "Group id")), responses((status = 200, body = Group)))]
pub(crate) async fn show_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Group> {
    Ok(Json(group(state.app.group(&caller, id(&which, "group")?).await?)))
}

/// Changes what a group gives, as a whole.
#[utoipa::path(put, path = "/groups/{group}", tag = "members", request_body = GroupTerms,
    params(("group" = String, Path, description = "Group id")), responses((status = 200, body = Group)))]
pub(crate) async fn edit_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<GroupTerms>,
) -> Answer<Group> {
    Ok(Json(group(state.app.edit_group(&caller, id(&which, "group")?, &terms(body)?).await?)))
}

/// Removes a group; what it gave is gone at once.
#[utoipa::path(delete, path = "/groups/{group}", tag = "members",
    params(("group" = String, Path, description = "Group id")),
    responses((status = 204, description = "Removed")))]
pub(crate) async fn delete_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Result<StatusCode, Refusal> {
    state.app.delete_group(&caller, id(&which, "group")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a member of the partner into a group.
#[utoipa::path(put, path = "/groups/{group}/members/{user}", tag = "members",
    params(("group" = String, Path, description = "Group id"), ("user" = String, Path, description = "User id")),
    responses((status = 200, body = Group)))]
pub(crate) async fn add_to_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((which, user)): Path<(String, String)>,
) -> Answer<Group> {
    let set = state.app.set_group_member(&caller, id(&which, "group")?, id(&user, "user")?, true).await?;
    Ok(Json(group(set)))
}

/// Takes somebody out of a group.
#[utoipa::path(delete, path = "/groups/{group}/members/{user}", tag = "members",
    params(("group" = String, Path, description = "Group id"), ("user" = String, Path, description = "User id")),
    responses((status = 200, body = Group)))]
pub(crate) async fn take_from_group(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((which, user)): Path<(String, String)>,
) -> Answer<Group> {
    let set = state.app.set_group_member(&caller, id(&which, "group")?, id(&user, "user")?, false).await?;
    Ok(Json(group(set)))
}
