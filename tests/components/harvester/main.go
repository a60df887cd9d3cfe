// Parts of Harvester as a program of their own, beside the API server of a test.
//
//	harvester webhook      its admission webhook, with every validator and mutator
//	harvester controllers  its controllers of VMs and VMIs
//	harvester crds         print the CRDs of KubeVirt that it is built with
//
// Two processes, so that the controllers can sleep while the webhook answers. Each writes "ready"
// to its standard output once it is at work.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/harvester/harvester/pkg/config"
	"github.com/harvester/harvester/pkg/controller/master/virtualmachine"
	"github.com/harvester/harvester/pkg/indexeres"
	webhookconfig "github.com/harvester/harvester/pkg/webhook/config"
	webhookindexes "github.com/harvester/harvester/pkg/webhook/indexeres"
	"github.com/harvester/harvester/pkg/webhook/types"
	"github.com/rancher/lasso/pkg/controller"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/rancher/wrangler/v3/pkg/ratelimit"
	"github.com/rancher/wrangler/v3/pkg/schemes"
	admission "k8s.io/api/admissionregistration/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubevirt "kubevirt.io/api/core/v1"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"

	harvester "github.com/harvester/harvester/pkg/apis/harvesterhci.io/v1beta1"
)

const (
	namespace = "harvester-system"
	threads   = 5
)

func main() {
	// Not the flags of the whole process: a library has taken "kubeconfig" there.
	flags := flag.NewFlagSet(os.Args[0], flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	user := flags.String("user", "", "whom the API server takes the controllers for")
	if len(os.Args) < 2 {
		fail(fmt.Errorf("say webhook, controllers or crds"))
	}
	role := os.Args[1]
	if err := flags.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	if role == "crds" {
		fail(printCRDs())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	fail(err)
	// As Harvester does; the default would hold back what a test waits for.
	client.RateLimiter = ratelimit.None
	switch role {
	case "webhook":
		err = serveWebhook(ctx, client, *user)
	case "controllers":
		err = runControllers(ctx, client)
	default:
		err = fmt.Errorf("%s: say webhook, controllers or crds", role)
	}
	fail(err)
	fmt.Println("ready")
	<-ctx.Done()
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// runControllers starts what Harvester registers for VMs and VMIs, and nothing else of it.
func runControllers(ctx context.Context, client *rest.Config) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		harvester.AddToScheme, kubevirt.AddToScheme, schemes.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	factory, err := controller.NewSharedControllerFactoryFromConfig(client, scheme)
	if err != nil {
		return err
	}
	shared := &generic.FactoryOptions{SharedControllerFactory: factory}
	ctx, scaled, err := config.SetupScaled(ctx, client, shared)
	if err != nil {
		return err
	}
	options := config.Options{Namespace: namespace, Threadiness: threads}
	if err := indexeres.Setup(ctx, nil, nil, options); err != nil {
		return err
	}
	if err := virtualmachine.Register(ctx, scaled.Management, options); err != nil {
		return err
	}
	return scaled.Management.Start(threads)
}

// serveWebhook answers on loopback, and tells the API server so.
//
// Harvester's own way needs a Service, and secrets that another program writes.
func serveWebhook(ctx context.Context, client *rest.Config, user string) error {
	options := &webhookconfig.Options{
		Namespace:                   namespace,
		Threadiness:                 threads,
		HarvesterControllerUsername: user,
		GarbageCollectionUsername:   "system:serviceaccount:kube-system:generic-garbage-collector",
	}
	own, err := newClients(ctx, client)
	if err != nil {
		return err
	}
	webhookindexes.RegisterIndexers(own)
	validators, validated, mutators, mutated, err := handlers(own, options)
	if err != nil {
		return err
	}
	certificate, authority, err := selfSigned()
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
	})
	if err != nil {
		return err
	}
	paths := http.NewServeMux()
	paths.Handle("/validate", validators)
	paths.Handle("/mutate", mutators)
	server := &http.Server{Handler: paths, ReadHeaderTimeout: 10 * time.Second}
	go func() { fail(server.Serve(listener)) }()
	if err := own.Start(ctx); err != nil {
		return err
	}
	return register(ctx, client, "https://"+listener.Addr().String(), authority, validated, mutated)
}

// register makes the two configurations, with the names and policies that Harvester gives them.
func register(
	ctx context.Context, client *rest.Config, url string, authority []byte,
	validated, mutated []types.Resource,
) error {
	set, err := kubernetes.NewForConfig(client)
	if err != nil {
		return err
	}
	at := func(path string) admission.WebhookClientConfig {
		whole := url + path
		return admission.WebhookClientConfig{URL: &whole, CABundle: authority}
	}
	none, strict, lenient := admission.SideEffectClassNone, admission.Fail, admission.Ignore
	configurations := set.AdmissionregistrationV1()
	_, err = configurations.MutatingWebhookConfigurations().Create(
		ctx,
		&admission.MutatingWebhookConfiguration{
			ObjectMeta: meta.ObjectMeta{Name: "harvester-mutator"},
			Webhooks: []admission.MutatingWebhook{{
				Name:                    "mutator.harvesterhci.io",
				ClientConfig:            at("/mutate"),
				Rules:                   rules(mutated),
				FailurePolicy:           &lenient,
				SideEffects:             &none,
				AdmissionReviewVersions: []string{"v1"},
			}},
		},
		meta.CreateOptions{},
	)
	if err != nil {
		return err
	}
	_, err = configurations.ValidatingWebhookConfigurations().Create(
		ctx,
		&admission.ValidatingWebhookConfiguration{
			ObjectMeta: meta.ObjectMeta{Name: "harvester-validator"},
			Webhooks: []admission.ValidatingWebhook{{
				Name:                    "validator.harvesterhci.io",
				ClientConfig:            at("/validate"),
				Rules:                   rules(validated),
				FailurePolicy:           &strict,
				SideEffects:             &none,
				AdmissionReviewVersions: []string{"v1"},
			}},
		},
		meta.CreateOptions{},
	)
	return err
}

func rules(resources []types.Resource) []admission.RuleWithOperations {
	made := make([]admission.RuleWithOperations, 0, len(resources))
	for _, resource := range resources {
		scope := resource.Scope
		made = append(made, admission.RuleWithOperations{
			Operations: resource.OperationTypes,
			Rule: admission.Rule{
				APIGroups:   []string{resource.APIGroup},
				APIVersions: []string{resource.APIVersion},
				Resources:   resource.Names,
				Scope:       &scope,
			},
		})
	}
	return made
}

// selfSigned makes a certificate for loopback, and what a client has to trust, in PEM.
func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text, nil
}

// printCRDs prints, one a line, those CRDs that virt-operator would make and a test needs.
func printCRDs() error {
	made := []func() (*apiextensions.CustomResourceDefinition, error){
		components.NewVirtualMachineCrd,
		components.NewVirtualMachineInstanceCrd,
		components.NewVirtualMachineInstanceMigrationCrd,
	}
	lines := json.NewEncoder(os.Stdout)
	for _, each := range made {
		definition, err := each()
		if err != nil {
			return err
		}
		if err := lines.Encode(definition); err != nil {
			return err
		}
	}
	return nil
}
