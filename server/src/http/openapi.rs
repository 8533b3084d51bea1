//! The description of the API, made from the code.

use api::problem::Problem;
use api::quota::QuotaFigures;
use api::services::AllocationRefusal;
use axum::http::{HeaderName, header};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder};
use utoipa::openapi::{Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

const SCHEME: &str = "token";

/// Everything but the paths.
pub(crate) fn base() -> OpenApi {
    let mut components = Components::new();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`hf_…`")).build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
    let mut schemas = vec![(Problem::name().into_owned(), problem())];
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Holdfast").version(env!("CARGO_PKG_VERSION")).description(Some(
            "Backup over HTTPS. Every refusal is a problem document (RFC 9457) whose `code` says what the \
                     caller must do. Ids are lower-case hexadecimal, times nanoseconds since 1970 UTC, sizes bytes.",
        )))
        .components(Some(components))
        .security(Some([SecurityRequirement::new(SCHEME, Vec::<String>::new())]))
        .build()
}

/// A problem document as it is sent: the figures of some refusals are optional members of their own, where the derived
/// schema asks for all of them or for null.
fn problem() -> RefOr<Schema> {
    let RefOr::T(Schema::AllOf(derived)) = Problem::schema() else { return Problem::schema() };
    let mut members = ObjectBuilder::new().description(derived.description);
    for part in derived.items {
        if let RefOr::T(Schema::Object(own)) = part {
            members = own.properties.into_iter().fold(members, |all, (name, schema)| all.property(name, schema));
            members = own.required.into_iter().fold(members, ObjectBuilder::required);
        }
    }
    for figures in [QuotaFigures::schema(), AllocationRefusal::schema()] {
        if let RefOr::T(Schema::Object(figures)) = figures {
            members = figures.properties.into_iter().fold(members, |all, (name, schema)| all.property(name, schema));
        }
    }
    RefOr::T(members.build().into())
}

/// The finished document: every call may also answer a problem.
pub(crate) fn document(mut description: OpenApi) -> Result<String, serde_json::Error> {
    let problem = ResponseBuilder::new()
        .description("Refused")
        .content(
            api::PROBLEM,
            ContentBuilder::new().schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Problem")))).build(),
        )
        .build();
    for item in description.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.delete, &mut item.head, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".into(), problem.clone().into());
        }
    }
    let mut text = description.to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

/// `GET /openapi.json`.
pub(crate) async fn answer(document: String) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], document)
}
