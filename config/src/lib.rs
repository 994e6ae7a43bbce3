//! router.yaml and microservice.yaml: types, layers and diagnostics.
