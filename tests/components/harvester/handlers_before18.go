//go:build before18

package main

import (
	"context"
	"net/http"

	"github.com/harvester/harvester/pkg/webhook/clients"
	"github.com/harvester/harvester/pkg/webhook/config"
	"github.com/harvester/harvester/pkg/webhook/server"
	"github.com/harvester/harvester/pkg/webhook/types"
	"k8s.io/client-go/rest"
)

func newClients(ctx context.Context, client *rest.Config) (*clients.Clients, error) {
	return clients.New(ctx, client, threads)
}

func handlers(own *clients.Clients, options *config.Options) (
	validators http.Handler, validated []types.Resource,
	mutators http.Handler, mutated []types.Resource, err error,
) {
	if validators, validated, err = server.Validation(own, options); err != nil {
		return
	}
	mutators, mutated, err = server.Mutation(own, options)
	return
}
