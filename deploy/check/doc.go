// Package check holds everything below deploy to the programs that will read it, and to the code of Evently:
//
//   - Dockerfile: buildkit's parser and linter, and the build itself, carried out here in what the context would be.
//   - compose.yaml: the loader of Docker Compose, with its schema.
//   - kubernetes: kustomize, and the types of the Kubernetes API, which know every field.
//   - systemd: systemd-analyze.
//   - prometheus: promtool, with unit tests of the alerts.
//   - every setting: the program that the Dockerfile builds reads it, and production accepts it.
//
// Each check is a function of a deploy folder, or of files in it, and returns what is wrong. Its test has it refuse broken copies: a
// check that cannot fail is no check. The package is a module of its own, so that what it needs is no part of the product.
package check
