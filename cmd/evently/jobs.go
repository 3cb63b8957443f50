package main

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently"
	"github.com/evently/evently/store"
)

// newJobs returns the jobs of the cluster, of which this node does its part. What one node has to do again and again is listed here.
func (p *program) newJobs(pool *pgxpool.Pool, pricer evently.Pricer) (*store.Jobs, error) {
	config := store.JobsConfig{
		Periodic: []store.PeriodicJob{p.webhooks.reseal()},
		Logger:   p.log, Metrics: store.NewJobMetrics(p.registry),
	}
	if p.config.PricingInterval != 0 {
		config.Periodic = append(config.Periodic, p.pricing(pricer))
	}
	if p.mails.kept != nil {
		config.Workers = append(config.Workers, p.mails.kept.Work)
	}
	return store.NewJobs(pool, config)
}

// pricing reprices all events that have a rule.
func (p *program) pricing(pricer evently.Pricer) store.PeriodicJob {
	return store.PeriodicJob{Name: "pricing", Every: p.config.PricingInterval, Run: func(ctx context.Context) error {
		report, err := pricer.Run(ctx, new(evently.PriceRun))
		if err == nil {
			p.log.InfoContext(ctx, "repriced", "events", report.Examined, "prices", report.Changed, "failed", report.Failed)
		}
		return err
	}}
}
