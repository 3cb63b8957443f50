// Package noticepb is what members send each other outside of the actors with an identity: Envelope, around a notice, a
// query or an answer. Topics are strings and bodies are bytes, whose meaning is the business of those that send them.
//
// Nodes of two versions talk to each other during an upgrade, so new things to say are new topics, not new messages: a
// notice of a topic that a node does not know is ignored, and a query of one is answered with unknown_topic. Fields and
// kinds of content that a node does not know are ignored; numbers and types of fields never change, and numbers of removed
// ones are reserved.
//
// notice.pb.go is made by `make generate`, with protoc 3.21 as in Debian 12 (apt-get install -y --no-install-recommends
// protobuf-compiler) and the protoc-gen-go of the version of google.golang.org/protobuf in go.mod.
package noticepb

//go:generate go build -o ../../bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=../../bin/protoc-gen-go -I ../.. --go_out=../.. --go_opt=paths=source_relative ../../cluster/noticepb/notice.proto
