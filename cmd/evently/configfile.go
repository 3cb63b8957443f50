package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// readConfigFile returns the settings in a YAML file of names and values; a list may stand as a sequence.
// Every name must be known. Without a path there is nothing to read.
func readConfigFile(path string, table []setting) (map[string]origin, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read
	known := make(map[string]bool)
	for _, s := range table {
		known[s.name] = s.name != "config"
		if s.secret {
			known[s.file().name] = true
		}
	}
	var entries map[string]yaml.Node // decoding refuses keys that stand twice
	decoder := yaml.NewDecoder(file)
	if err := decoder.Decode(&entries); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: has more than one document", path)
	}
	found := make(map[string]origin)
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		node := entries[name]
		source := fmt.Sprintf("%s:%d", path, node.Line)
		text, err := scalar(&node)
		switch {
		case !known[name]:
			wrong = append(wrong, fmt.Errorf("%s: unknown setting %q", source, name))
		case err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %s: %w", source, name, err))
		default:
			found[name] = origin{text, source}
		}
	}
	return found, errors.Join(wrong...)
}

// scalar is the text of a plain value, or of a sequence of them separated by commas.
func scalar(node *yaml.Node) (string, error) {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "", errors.New("has no value")
	case node.Kind == yaml.ScalarNode:
		return node.Value, nil
	case node.Kind != yaml.SequenceNode:
		return "", errors.New("must be a plain value or a list of them")
	}
	parts := make([]string, len(node.Content))
	for i, item := range node.Content {
		if item.Kind != yaml.ScalarNode {
			return "", errors.New("must be a plain value or a list of them")
		}
		parts[i] = item.Value
	}
	return strings.Join(parts, ","), nil
}
