//! Write a service as async functions; Stella Router brings it the requests.
