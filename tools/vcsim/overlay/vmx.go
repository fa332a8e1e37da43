// The files beside a VM's disks: its .vmx, written after each change and read at registration, and
// its .nvram.
package simulator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

const nvramSize = 8684 // as ESXi's of a VM with BIOS

// settle brings the files and what follows from them up to date after a change of the VM.
func settle(moid string) {
	vm := virtualMachine(moid)
	if vm == nil || vm.Config == nil || vm.log == "" || vm.Runtime.Host == nil {
		return
	}
	vm.writeVMX()
	vm.writeNVRAM()
	vm.followTools()
	vm.RefreshStorageInfo(nil, nil)
}

func (vm *VirtualMachine) writeNVRAM() {
	file := strings.TrimSuffix(dsFile(vm.Config.Files.VmPathName), ".vmx") + ".nvram"
	if st, err := os.Stat(file); err == nil && st.Size() > 0 {
		return
	}
	var data []byte
	for sum := sha256.Sum256([]byte(vm.Config.InstanceUuid)); len(data) < nvramSize; sum = sha256.Sum256(sum[:]) {
		data = append(data, sum[:]...)
	}
	_ = os.WriteFile(file, data[:nvramSize], 0644)
}

func (vm *VirtualMachine) writeVMX() {
	c := vm.Config
	values := map[string]string{
		".encoding": "UTF-8", "config.version": "8",
		"virtualHW.version": strings.TrimLeft(strings.TrimPrefix(c.Version, "vmx-"), "0"),
		"displayName":       vm.Name, "guestOS": strings.ReplaceAll(strings.TrimSuffix(c.GuestId, "Guest"), "_", "-"),
		"firmware": c.Firmware, "nvram": strings.TrimSuffix(path.Base(c.Files.VmPathName), ".vmx") + ".nvram",
		"memSize": strconv.Itoa(int(c.Hardware.MemoryMB)), "numvcpus": strconv.Itoa(int(c.Hardware.NumCPU)),
		"uuid.bios": spacedUUID(c.Uuid), "vc.uuid": spacedUUID(c.InstanceUuid),
		"ctkEnabled": strings.ToUpper(strconv.FormatBool(isTrue(c.ChangeTrackingEnabled))),
	}
	for _, d := range c.Hardware.Device {
		vm.describe(values, d)
	}
	for _, o := range c.ExtraConfig {
		if v := o.GetOptionValue(); values[v.Key] == "" {
			values[v.Key] = fmt.Sprint(v.Value)
		}
	}
	var keys []string
	for k := range values {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var text strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&text, "%s = %q\n", k, values[k])
	}
	_ = os.WriteFile(dsFile(c.Files.VmPathName), []byte(text.String()), 0644)
}

// describe writes what a .vmx says of one device.
func (vm *VirtualMachine) describe(values map[string]string, device types.BaseVirtualDevice) {
	switch d := device.(type) {
	case *types.VirtualDisk:
		name := vm.busName(d.ControllerKey)
		b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if name == "" || d.UnitNumber == nil || !ok {
			return
		}
		name = fmt.Sprintf("%s:%d", name, *d.UnitNumber)
		values[name+".present"] = "TRUE"
		values[name+".deviceType"] = "scsi-hardDisk"
		values[name+".fileName"] = vm.relative(b.GetVirtualDeviceFileBackingInfo().FileName)
		if f := back(d); f != nil {
			values[name+".mode"] = strings.ReplaceAll(f.DiskMode, "_", "-")
			if isTrue(vm.Config.ChangeTrackingEnabled) {
				values[name+".ctkEnabled"] = "TRUE"
			}
		}
	case types.BaseVirtualEthernetCard:
		c := d.GetVirtualEthernetCard()
		name := fmt.Sprintf("ethernet%d", c.Key-4000)
		values[name+".present"], values[name+".address"] = "TRUE", c.MacAddress
		if b, ok := c.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
			values[name+".networkName"] = b.DeviceName
		}
		if c.Connectable != nil {
			values[name+".startConnected"] = strings.ToUpper(strconv.FormatBool(c.Connectable.StartConnected))
		}
	default:
		if name := vm.busName(device.GetVirtualDevice().Key); name != "" {
			values[name+".present"] = "TRUE"
			values[name+".virtualDev"] = map[string]string{
				"ParaVirtualSCSIController": "pvscsi", "VirtualLsiLogicSASController": "lsisas1068",
			}[object.VirtualDeviceList{}.TypeName(device)]
			if values[name+".virtualDev"] == "" {
				delete(values, name+".virtualDev")
			}
		}
	}
}

// busName is scsi0, sata0, nvme0, ... for a controller's key.
func (vm *VirtualMachine) busName(key int32) string {
	for _, d := range vm.Config.Hardware.Device {
		c, ok := d.(types.BaseVirtualController)
		if !ok || d.GetVirtualDevice().Key != key {
			continue
		}
		bus := c.GetVirtualController().BusNumber
		switch d.(type) {
		case types.BaseVirtualSCSIController:
			return fmt.Sprintf("scsi%d", bus)
		case types.BaseVirtualSATAController:
			return fmt.Sprintf("sata%d", bus)
		case *types.VirtualNVMEController:
			return fmt.Sprintf("nvme%d", bus)
		}
	}
	return ""
}

// relative is a disk's name as the .vmx has it: plain in the VM's folder, else a whole path.
func (vm *VirtualMachine) relative(fileName string) string {
	if path.Dir(fileName) == path.Dir(vm.Config.Files.VmPathName) {
		return path.Base(fileName)
	}
	var p object.DatastorePath
	p.FromString(fileName)
	return "/vmfs/volumes/" + p.Datastore + "/" + p.Path
}

var (
	cardName = regexp.MustCompile(`^ethernet(\d+)\.present$`)
	// What is hardware, or has a place of its own in a ConfigInfo; all else is extraConfig.
	described = regexp.MustCompile(`^((scsi|sata|nvme|ide|ethernet|floppy|serial|parallel)\d.*|config\.version|` +
		`virtualhw\.version|displayname|guestos|firmware|memsize|numvcpus|uuid\.bios|vc\.uuid|ctkenabled)$`)
	vmxLine  = regexp.MustCompile(`(?m)^\s*([\w.:]+)\s*=\s*"(.*)"\s*$`)
	diskName = regexp.MustCompile(`^(scsi|sata|nvme)(\d+):(\d+)\.filename$`)
)

// vadpVMX completes the configuration of a VM that is registered by what its .vmx says.
func vadpVMX(spec *types.VirtualMachineConfigSpec) {
	vmx := spec.Files.VmPathName
	text, err := os.ReadFile(dsFile(vmx))
	if err != nil {
		return
	}
	values := map[string]string{}
	for _, m := range vmxLine.FindAllStringSubmatch(string(text), -1) {
		values[strings.ToLower(m[1])] = m[2]
	}
	spec.Firmware = values["firmware"]
	spec.Uuid, spec.InstanceUuid = dashedUUID(values["uuid.bios"]), dashedUUID(values["vc.uuid"])
	if takenInstance(spec.InstanceUuid) {
		spec.InstanceUuid = ""
	}
	if id := strings.ReplaceAll(values["guestos"], "-", "_") + "Guest"; validateGuestID(id) == nil {
		spec.GuestId = id
	}
	if n, err := strconv.Atoi(values["memsize"]); err == nil {
		spec.MemoryMB = int64(n)
	}
	if n, err := strconv.Atoi(values["numvcpus"]); err == nil {
		spec.NumCPUs = int32(n)
	}
	spec.DeviceChange = append(registeredDisks(values, vmx), registeredCards(values)...)
	for _, m := range vmxLine.FindAllStringSubmatch(string(text), -1) {
		if !described.MatchString(strings.ToLower(m[1])) {
			spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: m[1], Value: m[2]})
		}
	}
}

// registeredCards are the network cards that a .vmx names. A network that is not there is the one
// that every host has.
func registeredCards(values map[string]string) []types.BaseVirtualDeviceConfigSpec {
	var numbers []int
	for k, v := range values {
		if m := cardName.FindStringSubmatch(k); m != nil && strings.EqualFold(v, "TRUE") {
			number, _ := strconv.Atoi(m[1])
			numbers = append(numbers, number)
		}
	}
	sort.Ints(numbers)
	var res []types.BaseVirtualDeviceConfigSpec
	for _, number := range numbers {
		name := fmt.Sprintf("ethernet%d", number)
		network := values[name+".networkname"]
		if network == "" || Map.FindByName(network, networks()) == nil {
			network = "VM Network"
		}
		c := &types.VirtualVmxnet3{}
		c.Key = int32(4000 + number)
		c.MacAddress = values[name+".address"]
		backing := &types.VirtualEthernetCardNetworkBackingInfo{}
		backing.DeviceName = network
		c.Backing = backing
		start := !strings.EqualFold(values[name+".startconnected"], "FALSE")
		c.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: start, Connected: false, AllowGuestControl: true}
		res = append(res, &types.VirtualDeviceConfigSpec{Operation: "add", Device: c})
	}
	return res
}

func networks() []types.ManagedObjectReference {
	var res []types.ManagedObjectReference
	for _, e := range Map.All("Network") {
		res = append(res, e.Reference())
	}
	return res
}

// vadpExtra takes out of extraConfig what is about to be set anew; an empty value only takes out.
func vadpExtra(vm *VirtualMachine, spec *types.VirtualMachineConfigSpec) {
	replaced := map[string]bool{}
	var set []types.BaseOptionValue
	for _, o := range spec.ExtraConfig {
		v := o.GetOptionValue()
		replaced[v.Key] = true
		if v.Value != "" {
			set = append(set, o)
		}
	}
	var kept []types.BaseOptionValue
	for _, o := range vm.Config.ExtraConfig {
		if !replaced[o.GetOptionValue().Key] {
			kept = append(kept, o)
		}
	}
	vm.Config.ExtraConfig, spec.ExtraConfig = kept, set
}

var settingPath = regexp.MustCompile(`^config\.extraConfig\["(.+)"\]$`)

// vadpSettingKey tells whether one advanced setting is asked for, and which.
func vadpSettingKey(path string) (string, bool) {
	m := settingPath.FindStringSubmatch(path)
	if m == nil {
		return "", false
	}
	return m[1], true
}

var errNoSuchSetting = errors.New("no such setting")

// vadpSetting is that setting of a VM. One that is not set is not mentioned in an answer at all.
func vadpSetting(vm reflect.Value, key string) (interface{}, error) {
	value, err := fieldValue(vm, "config.extraConfig")
	if err != nil {
		return nil, err
	}
	settings, _ := value.(*types.ArrayOfOptionValue)
	if settings == nil {
		return nil, errNoSuchSetting
	}
	for _, o := range settings.OptionValue {
		if v := o.GetOptionValue(); v.Key == key {
			return *v, nil
		}
	}
	return nil, errNoSuchSetting
}

func takenInstance(uuid string) bool {
	for _, e := range Map.All("VirtualMachine") {
		if vm, ok := e.(*VirtualMachine); ok && vm.Config != nil && vm.Config.InstanceUuid == uuid {
			return true
		}
	}
	return false
}

// registeredDisks are the disks that a .vmx names, and their controllers.
func registeredDisks(values map[string]string, vmx string) []types.BaseVirtualDeviceConfigSpec {
	var names []string
	for k := range values {
		if m := diskName.FindStringSubmatch(k); m != nil && strings.HasSuffix(values[k], ".vmdk") {
			names = append(names, k)
		}
	}
	sort.Strings(names)
	var res []types.BaseVirtualDeviceConfigSpec
	controllers := map[string]int32{}
	for _, name := range names {
		m := diskName.FindStringSubmatch(name)
		bus, _ := strconv.Atoi(m[2])
		number, _ := strconv.Atoi(m[3])
		unit := int32(number)
		key, ok := controllers[m[1]+m[2]]
		if !ok {
			var controller types.BaseVirtualDevice
			controller, key = newController(m[1], int32(bus), values[m[1]+m[2]+".virtualdev"])
			controllers[m[1]+m[2]] = key
			res = append(res, &types.VirtualDeviceConfigSpec{Operation: "add", Device: controller})
		}
		d := &types.VirtualDisk{}
		d.Key, d.ControllerKey, d.UnitNumber = 2000+int32(bus*16)+unit, key, &unit
		d.Backing = &types.VirtualDiskFlatVer2BackingInfo{
			DiskMode:                     "persistent",
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: absolute(values[name], vmx)},
		}
		res = append(res, &types.VirtualDeviceConfigSpec{Operation: "add", Device: d})
	}
	return res
}

func absolute(name, vmx string) string {
	if rest := strings.TrimPrefix(name, "/vmfs/volumes/"); rest != name {
		if at := strings.Index(rest, "/"); at > 0 {
			return "[" + rest[:at] + "] " + rest[at+1:]
		}
	}
	return path.Dir(vmx) + "/" + name
}

func newController(kind string, bus int32, device string) (types.BaseVirtualDevice, int32) {
	switch kind {
	case "sata":
		c := &types.VirtualAHCIController{}
		c.Key, c.BusNumber = 15000+bus, bus
		return c, c.Key
	case "nvme":
		c := &types.VirtualNVMEController{}
		c.Key, c.BusNumber = 31000+bus, bus
		return c, c.Key
	}
	if device == "lsilogic" {
		c := &types.VirtualLsiLogicController{}
		c.Key, c.BusNumber, c.SharedBus = 1000+bus, bus, types.VirtualSCSISharingNoSharing
		return c, c.Key
	}
	c := &types.ParaVirtualSCSIController{}
	c.Key, c.BusNumber, c.SharedBus = 1000+bus, bus, types.VirtualSCSISharingNoSharing
	return c, c.Key
}

// vadpFolder is the folder that a path in a datastore names, the .vmx being in it or it itself.
func vadpFolder(p string) string {
	if path.Ext(p) == ".vmx" {
		return path.Dir(p)
	}
	return p
}
