package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/evently/evently/store"
)

// startConsumers starts what follows the journal, and the work that comes of it, unless this node is to leave that to others.
func (p *program) startConsumers(ctx context.Context, pool *pgxpool.Pool) error {
	if p.config.Consumers == off {
		p.log.Info("consumers are off: another node has to do analytics, messages and jobs")
		return nil
	}
	if err := p.webhooks.start(ctx, p); err != nil {
		return err
	}
	consumers := []store.Consumer{store.AnalyticsConsumer(), p.webhooks.kept.Consumer(time.Now)}
	if p.mails.kept != nil {
		consumers = append(consumers, p.mails.kept.Consumer(p.jobs))
	}
	p.background("jobs", p.jobs.Run)
	feed := store.NewFeed(pool, store.FeedConfig{Logger: p.log, Metrics: store.NewFeedMetrics(p.registry)}, consumers...)
	p.background("feed", func(ctx context.Context) error {
		feed.Run(ctx)
		return nil
	})
	return nil
}
