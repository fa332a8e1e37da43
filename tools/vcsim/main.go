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
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags, at /rest
)

func main() {
	user := flag.String("user", "administrator@vsphere.local", "user; the password is $VCSIM_PASSWORD")
	vms := flag.Int("vms", 2, "VMs")
	hosts := flag.Int("hosts", 2, "hosts of the cluster")
	datastores := flag.Int("datastores", 1, "datastores")
	cert := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	flag.BoolVar(&simulator.Trace, "trace", false, "log SOAP")
	flag.Parse()

	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	m := simulator.VPX()
	m.Host, m.Machine, m.ClusterHost, m.Datastore = 0, *vms, *hosts, *datastores
	if err := m.Create(); err != nil {
		log.Fatal(err)
	}
	defer m.Remove()
	m.Service.RegisterEndpoints = true
	m.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	m.Service.Listen = &url.URL{
		Host: "127.0.0.1:0",
		User: url.UserPassword(*user, os.Getenv("VCSIM_PASSWORD")),
	}
	s := m.Service.NewServer()
	defer s.Close()
	answer := json.NewEncoder(os.Stdout)
	_ = answer.Encode(map[string]string{"address": s.URL.Host})
	for in := bufio.NewReader(os.Stdin); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := answer.Encode(simulator.VadpControl(line)); err != nil {
			return
		}
	}
}
