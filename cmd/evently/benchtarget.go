package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/evently/evently/bench"
)

// foreign is the API at a URL, which was asked whether it can be measured.
func (o *benchOptions) foreign(ctx context.Context, config *Config) (*bench.API, error) {
	api := &bench.API{URL: strings.TrimRight(o.target, "/")}
	var err error
	if api.Admin, err = bench.Login(ctx, api.URL, config.AdminEmail, config.AdminPassword); err != nil {
		return nil, err
	}
	if o.tokens == "" {
		api.Users, err = bench.RegisterUsers(ctx, api.URL, o.users)
		if errors.As(err, new(*bench.LimitedError)) {
			err = fmt.Errorf("%w, or bring --tokens, or have fewer --users", err)
		}
	} else {
		api.Users, err = readBenchTokens(o.tokens)
	}
	if err != nil {
		return nil, err
	}
	return api, api.Probe(ctx, o.rate, workloadsNamed(o.workloads))
}

func readBenchTokens(path string) ([]bench.User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read
	return bench.ReadTokens(file)
}
