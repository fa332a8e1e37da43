// A vCenter for tests: govmomi's simulator with what VADP needs. It is driven by one JSON request a
// line on its standard input, answered by one line on its standard output, and ends with that input,
// so that it never outlives the test that started it.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags, at /rest
)

// address is a port that can be closed and opened again.
type address struct {
	name   string
	config *tls.Config
	server *http.Server
	next   http.Handler
}

func (a *address) open() error {
	l, err := net.Listen("tcp", a.name)
	for wait := 0; err != nil && wait < 50; wait++ {
		time.Sleep(20 * time.Millisecond)
		l, err = net.Listen("tcp", a.name)
	}
	if err != nil {
		return err
	}
	a.server = &http.Server{Handler: a.next}
	go a.server.Serve(tls.NewListener(l, a.config)) //nolint:errcheck // it ends by close
	return nil
}

func (a *address) close() error { return a.server.Close() }

func main() {
	var setup simulator.Setup
	flag.StringVar(&setup.User, "user", "administrator@vsphere.local", "its password is $VCSIM_PASSWORD")
	flag.StringVar(&setup.HotAdd, "hotadd-dir", "", "folder for the devices of proxy VMs")
	vms := flag.Int("vms", 2, "VMs")
	hosts := flag.Int("hosts", 2, "hosts of the cluster")
	datastores := flag.Int("datastores", 1, "datastores")
	id := flag.String("instance-uuid", "", "vCenter's own")
	cert := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	flag.BoolVar(&simulator.Trace, "trace", false, "log SOAP")
	flag.Parse()
	setup.Password = os.Getenv("VCSIM_PASSWORD")

	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	state, err := os.MkdirTemp("", "state-")
	if err != nil {
		log.Fatal(err)
	}
	setup.State = state
	m := simulator.VPX()
	m.Host, m.Machine, m.ClusterHost, m.Datastore = 0, *vms, *hosts, *datastores
	if *id != "" {
		m.ServiceContent.About.InstanceUuid = *id
	}
	defer os.RemoveAll(state)
	defer m.Remove()
	at, err := serve(m, setup, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		log.Print(err)
		return
	}
	answerRequests(at)
	_ = at.close()
	simulator.DetachAll()
}

// serve makes the inventory and opens the port.
func serve(m *simulator.Model, setup simulator.Setup, config *tls.Config) (*address, error) {
	defer simulator.Enter()()
	if err := m.Create(); err != nil {
		return nil, err
	}
	simulator.Prepare(setup)
	m.Service.RegisterEndpoints = true
	m.Service.TLS = config
	m.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(setup.User, setup.Password)}
	s := m.Service.NewServer()
	// Its own server cannot be stopped and started again.
	if err := s.Config.Close(); err != nil {
		return nil, err
	}
	at := &address{name: s.URL.Host, config: config, next: simulator.VadpHandler(m.Service.ServeMux)}
	return at, at.open()
}

// answerRequests goes on until the input ends.
func answerRequests(at *address) {
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(map[string]string{"address": at.name})
	for in := bufio.NewReader(os.Stdin); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var head struct{ Op string }
		_ = json.Unmarshal(line, &head)
		var res interface{} = map[string]string{}
		switch strings.TrimSpace(head.Op) {
		case "stop":
			err = at.close()
		case "start":
			err = at.open()
		default:
			res = simulator.Control(line)
		}
		if err != nil {
			res = map[string]string{"error": err.Error()}
		}
		if out.Encode(res) != nil {
			return
		}
	}
}
