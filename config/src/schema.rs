//! JSON Schemas of both files, for editors: generated from the types, so that they never differ (SPEC 10).

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use crate::microservice::MicroserviceConfig;
use crate::router::RouterConfig;

/// The JSON Schema (draft 2020-12) of a `router.yaml` whose `transports` section has the type `T`.
#[must_use]
pub fn schema_for_router<T: JsonSchema + Default + serde::Serialize>() -> serde_json::Value {
    schema_for::<RouterConfig<T>>()
}

/// The JSON Schema (draft 2020-12) of `microservice.yaml`.
#[must_use]
pub fn schema_for_microservice() -> serde_json::Value {
    schema_for::<MicroserviceConfig>()
}

fn schema_for<T: JsonSchema>() -> serde_json::Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_hold_every_section_and_allow_nothing_else() {
        let router = schema_for_router::<std::collections::BTreeMap<String, String>>();
        let sections: Vec<_> = router["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            sections,
            [
                "admin",
                "health",
                "http",
                "limits",
                "log",
                "node",
                "routing",
                "services",
                "shutdown",
                "transports",
                "upgrade"
            ]
        );
        assert_eq!(router["additionalProperties"], false);
        assert_eq!(router["properties"]["health"]["default"]["dead_after"], "30s");
        let microservice = schema_for_microservice();
        assert_eq!(microservice["additionalProperties"], false);
        assert_eq!(microservice["properties"]["lease"]["default"], 1024);
        assert_eq!(microservice["$defs"]["GatewayConfig"]["required"], serde_json::json!(["url"]));
    }
}
